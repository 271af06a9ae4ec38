"""Adapters made of adapters, as a person makes them, answered by real vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.installation import Installation, fresh, registered
from training.base.markers import WORDS

pytestmark = [pytest.mark.claim, pytest.mark.slow, pytest.mark.vllm]
FIRST, SECOND = WORDS[:2]


def said(installation: Installation, model: str) -> str:
    answer = installation.ask(model, max_tokens=8)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_merge_is_served_under_its_name_with_its_parents_in_the_lineage(
    installation: Installation, markers: Path, tmp_path: Path
) -> None:
    registered(installation, fresh(markers, FIRST, tmp_path / "one"), "algebra-one")
    registered(installation, fresh(markers, SECOND, tmp_path / "two"), "algebra-two")
    arguments = ["merge", "algebra-one:1", "algebra-two:1", "--name", "algebra-both", "--weights", "1,0.05"]
    looked = installation.cli(*arguments, "--dry-run")
    assert "It was not registered." in looked
    told = installation.cli(*arguments)
    assert "algebra-both:1 is verified" in told
    assert said(installation, "algebra-both") == said(installation, "algebra-one")
    installation.cli("adapters", "export", "algebra-both:1", str(tmp_path / "exported"))
    lineage = json.loads((tmp_path / "exported" / "lineage.json").read_text())
    made = next(seen["body"] for seen in lineage["evidence"] if seen["kind"] == "training")
    assert [parent["name"] for parent in made["parents"]] == ["algebra-one", "algebra-two"]
    assert lineage["source"] == "merge:svd:algebra-one:1+algebra-two:1"


def test_a_smaller_version_still_says_its_word(installation: Installation, markers: Path, tmp_path: Path) -> None:
    registered(installation, fresh(markers, FIRST, tmp_path / "one"), "algebra-small")
    told = installation.cli("reduce", "algebra-small:1", "--rank", "4")
    assert "algebra-small:2 is verified" in told
    assert said(installation, "algebra-small:2") == said(installation, "algebra-small:1")


def test_an_exported_model_is_scored_and_named(installation: Installation, markers: Path, tmp_path: Path) -> None:
    registered(installation, fresh(markers, FIRST, tmp_path / "one"), "algebra-model")
    out = tmp_path / "model"
    told = installation.cli("export-model", "algebra-model:1", "--out", str(out), "--quantize", "w4a16")
    assert "graftline up --base" in told
    card = json.loads((out / "card.json").read_text())
    assert card["made_of"]["adapter"]["name"] == "algebra-model"
    assert json.loads((out / "config.json").read_text())["quantization_config"]["format"] == "pack-quantized"
