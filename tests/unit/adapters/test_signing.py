"""Signatures with real keys: a folder is what somebody we trust signed, or it is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.checks.modules import BaseModules
from adapters.checks.static import check
from adapters.errors import BadSignature, NoSigning, Unavailable
from adapters.limits import Limits
from adapters.signing import FILE, FILE_BYTES_MAX, KeySignatures, Unsigned, sign

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def keys(folder: Path, name: str = "release", *, curve: str = "SECP256R1", password: str = "") -> tuple[Path, Path]:
    """A fresh pair as PEM files: private, public."""
    pytest.importorskip("model_signing", reason="needs the signing extra")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(getattr(ec, curve)())
    locked = s.BestAvailableEncryption(password.encode()) if password else s.NoEncryption()
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1", "SECP521R1"])
def test_a_signed_adapter_is_vouched_for_and_still_passes_the_checks(
    curve: str, specimens: Specimens, modules: BaseModules, tmp_path: Path
) -> None:
    private, public = keys(tmp_path, curve=curve)
    folder = specimens.adapter()
    assert sign(folder, private) == folder / FILE
    signed = KeySignatures([public], "required").verify(folder)
    assert signed is not None
    assert signed.by.startswith("release.pub sha256:")
    assert check(folder, modules, Limits()).rank == 4


def test_one_of_several_keys_is_enough_and_is_named(specimens: Specimens, tmp_path: Path) -> None:
    _, other = keys(tmp_path, "other")
    private, public = keys(tmp_path)
    folder = specimens.adapter()
    sign(folder, private)
    signed = KeySignatures([other, public]).verify(folder)
    assert signed is not None
    assert "release.pub" in signed.by


@pytest.mark.parametrize("change", ["weights", "config", "added", "removed", "signature", "empty", "garbage", "huge"])
def test_whatever_is_changed_after_signing_breaks_it(change: str, specimens: Specimens, tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    folder = specimens.adapter()
    sign(folder, private)
    weights, config, signature = folder / "adapter_model.safetensors", folder / "adapter_config.json", folder / FILE
    if change == "weights":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif change == "config":
        config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    elif change == "added":
        (folder / "graftline.json").write_text("{}")
    elif change == "removed":
        (folder / "README.md").unlink()
    elif change == "signature":
        bundle = json.loads(signature.read_text())
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = "MEUCIQ=="
        signature.write_text(json.dumps(bundle))
    else:
        signature.write_bytes({"empty": b"", "garbage": b"[[1]]", "huge": bytes(FILE_BYTES_MAX + 1)}[change])
    with pytest.raises(BadSignature):
        KeySignatures([public]).verify(folder)


def test_a_signature_that_leaves_out_the_weights_is_none(specimens: Specimens, tmp_path: Path) -> None:
    """The format lets a signer ignore files, and a verifier that asks the signature which would believe it."""
    private, public = keys(tmp_path)
    from model_signing import hashing, signing

    folder = specimens.adapter()
    config = signing.Config().use_elliptic_key_signer(private_key=private)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[FILE, "adapter_model.safetensors"]))
    config.sign(folder, folder / FILE)
    with pytest.raises(BadSignature):
        KeySignatures([public]).verify(folder)


def test_a_foreign_key_is_no_key(specimens: Specimens, tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "stranger")
    _, public = keys(tmp_path)
    folder = specimens.adapter()
    sign(folder, private)
    with pytest.raises(BadSignature, match="somebody else signed"):
        KeySignatures([public]).verify(folder)
    with pytest.raises(BadSignature, match="names no key"):
        KeySignatures([]).verify(folder)


def test_an_unsigned_adapter_is_refused_only_where_signatures_are_required(
    specimens: Specimens, tmp_path: Path
) -> None:
    _, public = keys(tmp_path)
    folder = specimens.adapter()
    assert KeySignatures([public], "if_present").verify(folder) is None
    assert KeySignatures([public], "off").verify(folder) is None
    Unsigned().verify(folder)
    with pytest.raises(BadSignature, match="adapters sign"):
        KeySignatures([public], "required").verify(folder)


def test_a_key_with_a_password_signs(specimens: Specimens, tmp_path: Path) -> None:
    private, public = keys(tmp_path, password="secret")
    folder = specimens.adapter()
    with pytest.raises(BadSignature, match="cannot sign"):
        sign(folder, private)
    sign(folder, private, password="secret")
    assert KeySignatures([public], "required").verify(folder)


def test_signing_again_replaces_the_signature(specimens: Specimens, tmp_path: Path) -> None:
    first, first_public = keys(tmp_path, "first")
    second, second_public = keys(tmp_path, "second")
    folder = specimens.adapter()
    sign(folder, first)
    sign(folder, second)
    assert KeySignatures([second_public]).verify(folder)
    with pytest.raises(BadSignature):
        KeySignatures([first_public]).verify(folder)


def test_a_key_that_is_none_is_said_so(specimens: Specimens, tmp_path: Path) -> None:
    keys(tmp_path)
    (tmp_path / "no.pem").write_text("-----BEGIN NOTHING-----\n")
    with pytest.raises(BadSignature, match="openssl"):
        sign(specimens.adapter(), tmp_path / "no.pem")
    with pytest.raises(Unavailable):
        sign(specimens.adapter(), tmp_path / "nowhere.pem")


def test_without_the_library_it_says_what_to_install(
    specimens: Specimens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = keys(tmp_path)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(NoSigning, match=r"graftline\[signing\]"):
        sign(specimens.adapter(), private)
