"""The README's commands, run in order as they stand, on a whole installation with real vLLM."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.installation import Installation
from training.data.rules import parse
from training.recipes.recipe import read

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
#: What takes minutes is called so behind its language, and has a test of its own.
BLOCK = re.compile(r"^```(bash|python)( minutes)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(*, minutes: bool = False) -> list[tuple[str, str]]:
    found = BLOCK.findall(README.read_text())
    return [(language, text) for language, long, text in found if minutes or not long]


def pasted(blocks: list[tuple[str, str]], installation: Installation, folder: Path, *, timeout_s: float) -> str:
    """What the commands print."""
    said = []
    for language, text in blocks:
        ours = (
            text.replace("http://127.0.0.1:8000", installation.url)
            .replace(".graftline/", f"{installation.home}/")
            .replace(".venv/bin/python", sys.executable)
            .replace(".venv/bin/graftline", f"{sys.executable} -m gateway.cli")
        )
        argv = ["bash", "-euo", "pipefail", "-c", ours] if language == "bash" else [sys.executable, "-c", ours]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, env=installation.env, timeout=timeout_s)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert '"error"' not in done.stdout, f"{text}\n{done.stdout}"
        said.append(done.stdout)
    return "\n".join(said)


@pytest.mark.vllm
@pytest.mark.slow
def test_every_command_of_the_readme_works_as_pasted(installation: Installation, tmp_path: Path) -> None:
    everything = pasted(commands(), installation, tmp_path, timeout_s=300)
    assert "The Ember blender weighs" in everything
    assert "Our support desk is open" in everything
    assert "Alpha." in everything
    assert "support@live → 1 (was 2)" in everything
    assert "data.tokens_max" in everything


@pytest.mark.claim
@pytest.mark.vllm
@pytest.mark.slow
def test_what_takes_minutes_works_as_pasted(installation: Installation, tmp_path: Path) -> None:
    everything = pasted(commands(minutes=True), installation, tmp_path, timeout_s=900)
    assert "You can return any item within 45 days." in everything.partition("The gate passed")[2]
    assert re.search(r"^ft:tidewell:default:desk:\S+ .*45 days", everything, re.MULTILINE)


def test_the_readme_says_what_it_must() -> None:
    text = README.read_text()
    for heading in (
        "Sixty seconds",
        "Register an adapter",
        "Train from feedback",
        "The map",
        "Measured",
        "Known limits",
    ):
        assert f"## {heading}" in text
    assert "MEASURED" not in text
    assert len(commands()) >= 5
    assert len(commands(minutes=True)) > len(commands())


def test_the_readme_s_recipe_and_rules_are_read() -> None:
    written = dict(re.findall(r"^cat > \S+/(\S+) <<END\n(.*?)^END", README.read_text(), re.MULTILINE | re.DOTALL))
    recipe = read(written["returns.yaml"].replace("$DATASET", "rows.jsonl"))
    assert recipe.data.replay is not None
    assert recipe.gate.targets
    assert parse({"kind": "sft", **tomllib.loads(written["returns.toml"])}).evaluation > 0


def test_every_picture_of_the_readme_is_there() -> None:
    shown = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)", README.read_text(), re.MULTILINE)
    assert shown
    for name in shown:
        words = " ".join(ElementTree.parse(ROOT / name).getroot().itertext())
        assert "(SFT): loss" in words
        assert "(GRPO): reward" in words
