"""Which base an adapter names, compared with the one that is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.checks.identity import BaseIdentity, Stated, check_identity, identified, read_lineage, stem
from adapters.checks.modules import BaseModules
from adapters.checks.static import check
from adapters.checks.template import read_template_digest
from adapters.errors import Findings, Rejected
from adapters.limits import Limits

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

COMMIT, OTHER = "a" * 40, "b" * 40
SERVED = BaseIdentity(
    name="Qwen/Qwen3-8B-AWQ", aliases=(f"mirror/q3@{COMMIT}",), revision=OTHER, digest="sha256:" + "1" * 64
)

NAMES: dict[str, tuple[str, ...] | None] = {
    # name: labels, or None where it is refused
    "Qwen/Qwen3-8B-AWQ": (),
    "qwen/qwen3-8b-awq": (),
    "Qwen3-8B-AWQ": (),
    "mirror/q3": (),
    "Qwen/Qwen3-8B": ("other_quantization",),
    "unsloth/Qwen3-8B-unsloth-bnb-4bit": None,
    "unsloth/Qwen3-8B-bnb-4bit": ("other_quantization",),
    "Qwen/Qwen3-8B-GPTQ-Int4": ("other_quantization",),
    "RedHatAI/Qwen3-8B-quantized.w4a16": ("other_quantization",),
    "someone/Qwen3-8B-FP8-dynamic": ("other_quantization",),
    "someone/Qwen3-8B-AWQ": ("other_publisher",),
    "Qwen/Qwen3-14B": None,
    "meta-llama/Llama-3.1-8B": None,
    "": ("base_unnamed",),
    "/data/models/tuned": ("base_unnamed",),
    "./checkpoint-500": ("base_unnamed",),
    "C:\\models\\tuned": ("base_unnamed",),
    "/data/models/Qwen3-8B-AWQ": (),
    "/data/models/Qwen3-8B": ("other_quantization",),
    "/home/someone/.cache/huggingface/hub/models--Qwen--Qwen3-8B-AWQ/snapshots/" + OTHER: (),
    "/home/someone/.cache/huggingface/hub/models--meta--Llama/snapshots/" + OTHER: None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_the_served_base_a_relative_of_it_or_another(name: str) -> None:
    findings = Findings()
    labels = check_identity(Stated(name=name), SERVED, findings)
    if NAMES[name] is None:
        assert [reason.code for reason in findings.reasons()] == ["base_mismatch"]
    else:
        assert labels == NAMES[name]
        assert not findings.reasons()


@pytest.mark.parametrize(
    ("stated", "code"),
    [
        (Stated(name="Qwen/Qwen3-8B-AWQ", revision=OTHER), None),
        (Stated(name="Qwen/Qwen3-8B-AWQ", revision=COMMIT), None),  # an alias vouches for it
        (Stated(name="Qwen/Qwen3-8B-AWQ", revision="main"), None),
        (Stated(name="Qwen/Qwen3-8B-AWQ", revision="c" * 40), "base_revision_mismatch"),
        (Stated(name="Qwen/Qwen3-8B", revision="c" * 40), None),  # commits of another repository
        (Stated(name="Qwen/Qwen3-8B-AWQ", digest="sha256:" + "1" * 64), None),
        (Stated(name="Qwen/Qwen3-8B-AWQ", digest="sha256:" + "2" * 64), "base_digest_mismatch"),
        (Stated(name="", digest="sha256:" + "2" * 64), "base_digest_mismatch"),
        (Stated(name="Qwen/Qwen3-8B", digest="sha256:" + "2" * 64), None),
    ],
)
def test_revisions_and_digests_count_where_they_can_be_compared(stated: Stated, code: str | None) -> None:
    findings = Findings()
    check_identity(stated, SERVED, findings)
    assert [reason.code for reason in findings.reasons()] == ([code] if code else [])


def test_nothing_is_compared_where_the_base_has_no_name() -> None:
    findings = Findings()
    assert check_identity(Stated(name="any/thing"), BaseIdentity(), findings) == ()
    assert not findings.reasons()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/Llama-3-8B-W4A16-G128", "llama-3-8b"), ("AWQ", "awq"), ("x/Model-4bit-fp16", "model"), ("b/7B.Int8", "7b")],
)
def test_a_stem_is_what_remains_of_a_name_without_its_precision(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_a_folder_of_the_hub_cache_tells_repository_and_commit(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--Model-AWQ" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    found = identified(folder, names=("support", "./x"), digest="d")
    assert (found.names, found.revision) == (("support", "org/Model-AWQ"), COMMIT)


def test_a_card_tells_the_name_that_the_base_was_made_under(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"name": "tidewell"}')
    assert identified(tmp_path, names=("shop",), digest="").names == ("shop", "tidewell", tmp_path.name)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000])
def test_lineage_that_says_nothing_is_a_warning(content: str, tmp_path: Path) -> None:
    (tmp_path / "lineage.json").write_text(content)
    digest, warning = read_lineage(tmp_path)
    assert digest == ""
    assert "lineage.json" in warning


def test_lineage_states_the_digest_of_the_base(tmp_path: Path) -> None:
    (tmp_path / "lineage.json").write_text(json.dumps({"base": {"digest": "sha256:" + "3" * 64}}))
    assert read_lineage(tmp_path) == ("sha256:" + "3" * 64, "")
    (tmp_path / "lineage.json").write_text(json.dumps({"base_digest": "md5:1"}))
    assert "md5:1" in read_lineage(tmp_path)[1]


def test_templates_are_compared_and_named(specimens: Specimens) -> None:
    base_folder = specimens.base()
    (base_folder / "chat_template.jinja").write_text("{{ messages }}\n")
    base = BaseModules.read(base_folder, BaseIdentity(name="tiny"))
    same = check(specimens.adapter(files={"chat_template.jinja": b"{{ messages }}"}), base, Limits())
    assert (same.labels, same.template_digest) == ((), base.identity.template_digest)
    other = check(
        specimens.adapter(files={"chat_template.jinja": b"{{ m }}", "added_tokens.json": b'{"x": 1}'}), base, Limits()
    )
    assert other.labels == ("other_template", "own_tokens")
    assert len(other.warnings) == 2
    assert other.template_digest != base.identity.template_digest
    without = check(specimens.adapter(), base, Limits())
    assert without.template_digest == base.identity.template_digest


@pytest.mark.parametrize("template", ["x", [{"name": "default", "template": "x"}, {"name": "tools", "template": "y"}]])
def test_templates_in_a_tokenizers_config_count_too(template: object, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    in_config = read_template_digest(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "chat_template.jinja").write_text("x\n")
    assert in_config == read_template_digest(tmp_path)


def test_another_base_is_refused_with_what_to_do(specimens: Specimens) -> None:
    base = BaseModules.read(specimens.base(), BaseIdentity(name="tiny"))
    assert check(specimens.adapter(), base, Limits()).base_name == "tiny"
    with pytest.raises(Rejected, match="base_aliases"):
        check(specimens.adapter(config={"base_model_name_or_path": "org/large"}), base, Limits())


def test_what_a_version_carries_is_read_with_it(specimens: Specimens) -> None:
    base = BaseModules.read(specimens.base())
    report = check(specimens.adapter(files={"graftline.json": b'{"stop": ["END"]}'}), base, Limits())
    assert report.carried.stop == ("END",)
    with pytest.raises(Rejected, match="temperature"):
        check(specimens.adapter(files={"graftline.json": b'{"sampling": {"temperature": 9}}'}), base, Limits())


def test_a_faint_update_is_warned_of(specimens: Specimens) -> None:
    small = {name: specimens.floats(*raw[1], fill=1e-5) for name, raw in specimens.lora("q_proj", "v_proj").items()}
    report = check(specimens.adapter(tensors=small), BaseModules.read(specimens.base()), Limits())
    assert "16 bits may not show" in report.warnings[0]
