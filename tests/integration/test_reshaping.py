"""Versions made of versions, over a real registry: what comes out names its parents, and was held against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.carried import FILE as CARRIED
from adapters.errors import BadSignature, NotFound, Rejected
from adapters.values import Version
from gateway.control import Control, open_control
from gateway.reshaping import Made, Target, merged, reduced
from gateway.settings import Settings, load
from gateway.tuning.signing import make_sign
from tests.engines import tiny_adapter
from tests.unit.adapters.test_signing import keys
from training.errors import CannotConvert
from training.recipes import rows as rows_of
from training.recipes.errors import CannotMerge

torch: Any = pytest.importorskip("torch")
pytest.importorskip("peft")
pytestmark = pytest.mark.slow
ROWS = {"usual": rows_of.read("tidewell:usual", rows_max=16)}
BOTH = Target(name="both", who="test")


@pytest.fixture
def control(tmp_path: Path) -> Control:
    torch.set_num_threads(1)
    return open_control(load({"GRAFTLINE_HOME": str(tmp_path / "home")}))


def registered(control: Control, folder: Path, name: str, *, system: str = "", **shape: Any) -> Version:
    tiny_adapter(folder, **shape)
    if system:
        (folder / CARRIED).write_text(json.dumps({"system": system}))
    return control.registry.register(folder, name=name, who="test")


@pytest.fixture
def parents(control: Control, tmp_path: Path) -> list[str]:
    registered(control, tmp_path / "a", "a", seed=1, rank=4, scale=0.1, system="Be brief.")
    registered(control, tmp_path / "b", "b", seed=2, rank=8, scale=0.1, system="Be brief.")
    return ["a:1", "b:1"]


def of(control: Control, models: list[str], target: Target = BOTH, **more: Any) -> Made:
    usual = {"how": "svd", "weights": [1.0] * len(models), "density": 0.5, "seed": 0, "sources": ROWS}
    return merged(control, models, target, **{**usual, **more})


def test_a_merged_version_names_its_parents_and_what_it_kept_of_them(control: Control, parents: list[str]) -> None:
    made = of(control, parents, weights=[1.0, 0.5])
    assert made.version is not None
    version = control.adapters.get("both", 1)
    assert (version.source, version.origin, version.rank) == ("merge:svd:a:1+b:1", "upload", 12)
    assert version.carried.system == "Be brief."  # both carry the same
    assert made.loss < 1e-6  # rank 12 holds 4 + 8
    seen = control.registry.evidence("both", 1, "training")[0].body
    assert [(one["name"], one["number"]) for one in seen["parents"]] == [("a", 1), ("b", 1)]
    assert seen["parents"][0]["digest"] == control.adapters.get("a", 1).digest
    assert seen["weights"] == [1.0, 0.5]
    assert [score["subject"] for score in seen["scores"]] == ["base", "a:1", "b:1", "both (new)"]
    again = of(control, parents, weights=[1.0, 0.5])
    assert again.version is not None
    assert again.version.number == 1  # the same bytes are the same version


def test_a_dry_run_scores_and_registers_nothing(control: Control, parents: list[str]) -> None:
    made = of(control, parents, Target(name="both", who="test", dry_run=True))
    assert made.version is None
    near = made.scores[-1].near
    assert near.keys() == {"a:1", "b:1"}
    assert all(0 <= one.same_next <= 1 for one in near.values())
    assert control.adapters.list("both") == ()


def test_where_only_signed_adapters_are_taken_what_comes_out_is_signed(tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    settings = Settings(home=tmp_path / "home", signing="required", signing_keys=(public,), signing_key=private)
    control, sign = open_control(settings), make_sign(settings)
    assert sign is not None
    for seed, name in enumerate("ab"):
        sign(tiny_adapter(tmp_path / name, seed=seed, scale=0.1))
        control.registry.register(tmp_path / name, name=name, who="test")
    with pytest.raises(BadSignature):
        of(control, ["a:1", "b:1"], BOTH)
    made = of(control, ["a:1", "b:1"], Target(name="both", who="test", sign=sign))
    assert made.version is not None
    smaller = reduced(control, "both:1", Target(name="both", who="test", sign=sign), rank=4, sources=ROWS)
    assert smaller.version is not None
    assert smaller.version.number == 2


def test_the_servers_rank_holds_for_every_kind(control: Control, parents: list[str], tmp_path: Path) -> None:
    registered(control, tmp_path / "c", "c", seed=3, rank=16, scale=0.1)
    with pytest.raises(CannotMerge, match="cat adds ranks up to 20, and the server takes 16"):
        of(control, ["a:1", "c:1"], how="cat")
    made = of(control, [*parents, "c:1"], how="ties")
    assert made.rank == 16
    assert made.version is not None


def test_what_parents_carry_otherwise_is_not_guessed(control: Control, parents: list[str], tmp_path: Path) -> None:
    registered(control, tmp_path / "c", "c", seed=3, scale=0.1)
    made = of(control, ["a:1", "c:1"])
    assert made.version is not None
    assert not made.version.carried
    assert len(made.warnings) == 1
    assert made.warnings[0].startswith("a:1 carry defaults of their own")


def test_what_cannot_be_merged_is_refused(control: Control, parents: list[str]) -> None:
    for models, error, why in (
        (["a:1", "a:1"], CannotMerge, "twice"),
        (["a:1"], CannotMerge, "give two or more"),
        (["a:1", "none:1"], NotFound, "none"),
    ):
        with pytest.raises(error, match=why):
            of(control, models)
    with pytest.raises(Rejected):  # what cancels out changes nothing
        of(control, parents, weights=[0.0, 0.0], how="cat")


def test_a_smaller_version_is_the_nearest_and_says_what_it_lost(control: Control, tmp_path: Path) -> None:
    registered(control, tmp_path / "a", "a", rank=8, scale=0.1, system="Be brief.")
    made = reduced(control, "a:1", Target(name="a", who="test", note="smaller"), rank=3, sources=ROWS)
    assert (made.rank, 0 < made.loss < 1) == (3, True)
    version = control.adapters.get("a", 2)
    assert (version.rank, version.source, version.note) == (3, "reduce:a:1", "smaller")
    assert version.carried.system == "Be brief."
    body = control.registry.evidence("a", 2, "training")[0].body
    assert body["parents"] == [{"name": "a", "number": 1, "digest": control.adapters.get("a", 1).digest}]
    assert body["loss"] == made.loss
    base, before, after = made.scores
    assert (base.subject, before.subject, after.subject) == ("base", "a:1", "a (new)")
    assert after.near["a:1"].apart < base.near["a:1"].apart  # nearer to what it was than the base is
    for rank, why in ((8, "has rank 8 already"), (4, "")):
        if why:
            with pytest.raises(CannotConvert, match=why):
                reduced(control, "a:1", Target(name="a", who="test"), rank=rank, sources=ROWS)


def test_a_dora_in_a_folder_becomes_a_version(control: Control, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from training.probe import model as models

    torch.manual_seed(0)
    model, _ = models.load(control.base.folder)
    shape = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM", use_dora=True)
    adapted = get_peft_model(model, shape)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.05
    adapted.save_pretrained(str(tmp_path / "dora"))
    made = reduced(control, str(tmp_path / "dora"), Target(name="plain", who="test"), rank=16, sources=ROWS)
    assert made.version is not None
    assert (made.version.rank, made.version.source) == (16, "reduce")
    assert str(tmp_path) not in json.dumps(dict(control.registry.evidence("plain", 1, "training")[0].body))
    assert made.scores[-1].near["dora"].same_next > 0.9
