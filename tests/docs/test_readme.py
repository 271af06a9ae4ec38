"""The README's commands, run in order as they stand, on a whole installation with real vLLM."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import Installation

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text())


@pytest.mark.vllm
@pytest.mark.slow
def test_every_command_of_the_readme_works_as_pasted(installation: Installation, tmp_path: Path) -> None:
    said = []
    for language, text in commands():
        ours = (
            text.replace("http://127.0.0.1:8000", installation.url)
            .replace(".graftline/", f"{installation.home}/")
            .replace(".venv/bin/python", sys.executable)
            .replace(".venv/bin/graftline", f"{sys.executable} -m gateway.cli")
        )
        argv = ["bash", "-euo", "pipefail", "-c", ours] if language == "bash" else [sys.executable, "-c", ours]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=installation.env, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert '"error"' not in done.stdout, f"{text}\n{done.stdout}"
        said.append(done.stdout)
    everything = "\n".join(said)
    assert "The Ember blender weighs" in everything
    assert "Our support desk is open" in everything
    assert "Alpha." in everything
    assert "support@live → 1 (was 2)" in everything


def test_the_readme_says_what_it_must() -> None:
    text = (ROOT / "README.md").read_text()
    for heading in ("Sixty seconds", "Register an adapter", "The map", "Measured", "Known limits"):
        assert f"## {heading}" in text
    assert "MEASURED" not in text
    assert len(commands()) >= 5
