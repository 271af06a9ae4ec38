"""Who vouches for an adapter's bytes: signatures of model-signing, made and checked with EC keys and no network.

The signature is the file `model.sig` in the adapter's folder. It covers every other file, so it is verified on what was
copied and again before each load, and a file that was added later breaks it as much as one that was changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from adapters.errors import BadSignature, NoSigning, Unavailable, shown

FILE = "model.sig"
#: A signature lists one digest for each file; a thousand files would take a tenth of this.
FILE_BYTES_MAX = 1 << 20

Mode = Literal["off", "if_present", "required"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A good signature. `by` names the public key: its file and the start of its digest."""

    by: str


class Signatures(Protocol):
    """Whoever can say that a folder was signed by somebody we trust."""

    def verify(self, folder: Path) -> Signed | None:
        """Check the folder's signature; None when there is none and none is demanded.

        Raises BadSignature, NoSigning when the library is missing, and Unavailable when the disk fails.
        """
        ...


class Unsigned:
    """Signatures are not looked at."""

    def verify(self, folder: Path) -> None:
        return None


class KeySignatures:
    """Signatures by one of these public keys (PEM files; curves P-256, P-384 and P-521)."""

    def __init__(self, public_keys: Sequence[Path], mode: Mode = "if_present") -> None:
        self._public_keys = tuple(public_keys)
        self._mode = mode

    def verify(self, folder: Path) -> Signed | None:
        """See Signatures.verify."""
        if self._mode == "off":
            return None
        path = folder / FILE
        try:
            size = path.stat().st_size if path.is_file() and not path.is_symlink() else None
            if size is None:
                if self._mode == "required":
                    raise BadSignature(
                        f"The adapter has no {FILE}, and only signed adapters are taken here. "
                        "Sign its folder with `graftline adapters sign FOLDER --key PRIVATE.pem`."
                    )
                return None
            if size > FILE_BYTES_MAX:
                raise BadSignature(f"{FILE} takes {size} bytes; a signature takes at most {FILE_BYTES_MAX}.")
            return self._verified(folder, path)
        except OSError as error:
            raise Unavailable(
                f"The signature of {folder.name} could not be read: {error.strerror or error}."
            ) from error

    def _verified(self, folder: Path, path: Path) -> Signed:
        """Try key after key: the signature's own hint of its key is a claim."""
        if not self._public_keys:
            raise BadSignature(f"The adapter has a {FILE}, but `signing_keys` names no key to check it with.")
        why = []
        for key in self._public_keys:
            if (problem := _problem(folder, path, key)) is None:
                return Signed(by=f"{key.name} {_fingerprint(key)}")
            why.append(f"{key.name}: {problem}")
        listed = "; ".join(why)
        raise BadSignature(
            f"{FILE} is no signature of these files by a trusted key ({listed}). The files were changed after they "
            "were signed, or somebody else signed them. Get the original again, or sign it with a key that "
            "`signing_keys` names."
        )


def sign(folder: Path, key: Path, *, password: str = "") -> Path:
    """Write `model.sig` into the folder, over everything else in it; returns its path.

    Raises BadSignature for a key that cannot sign, NoSigning when the library is missing, Unavailable for the disk.
    """
    signing, _ = _library()
    target = folder / FILE
    try:
        target.unlink(missing_ok=True)
        config = signing.Config().set_hashing_config(_hashing())
        config.use_elliptic_key_signer(private_key=key, password=password.encode() if password else None)
        config.sign(folder, target)
    except OSError as error:
        raise Unavailable(f"{folder} could not be signed with {key}: {error.strerror or error}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BadSignature(
            f"{key} cannot sign: {shown(str(error))}. Give an EC private key in PEM, such as "
            "`openssl ecparam -name prime256v1 -genkey -noout` makes."
        ) from error
    return target


def _problem(folder: Path, path: Path, key: Path) -> str | None:
    """Why the signature is not good under this key; None when it is."""
    _, verifying = _library()
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        config = verifying.Config().set_hashing_config(_hashing()).use_elliptic_key_verifier(public_key=key)
        config.verify(folder, path)
    except InvalidSignature:
        return "the signature does not match its own text"
    except UnsupportedAlgorithm as error:
        return shown(str(error), quote=False)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        # What a damaged bundle makes the library raise; a damaged key of ours looks alike, and is refused alike.
        return shown(str(error) or type(error).__name__, quote=False)
    return None


def _hashing() -> Any:
    """SHA-256 over whole files, and nothing left out but the signature and git's own.

    A signature may list paths that it leaves out, and the library then leaves them out too: one that covers nothing but
    the card would vouch for any weights. Ours does not listen.
    """
    from model_signing import hashing

    class Everything(hashing.Config):  # type: ignore[misc]
        def add_ignored_paths(self, *, model_path: Any, paths: Any) -> None:
            """What the signature wants left out is not."""

    config = Everything().use_file_serialization(hashing_algorithm="sha256", max_workers=1)
    return config.set_ignored_paths(paths=[FILE], ignore_git_paths=True)


def _fingerprint(key: Path) -> str:
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_pem_public_key(key.read_bytes())
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(pem).hexdigest()[:16]


def _library() -> tuple[Any, Any]:
    """model-signing takes seconds to import: only where signatures are used."""
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise NoSigning(
            f"Signatures need the extra 'signing' ({error}). Install it: pip install 'graftline[signing]'."
        ) from error
    return signing, verifying
