"""lm-evaluation-harness against the gateway, by the commands that deploy/lm-eval/README.md gives, on real vLLM."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.beside import beside
from tests.installation import Installation, fresh, registered

pytestmark = [pytest.mark.claim, pytest.mark.vllm, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "lm-eval" / "README.md").read_text()


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness at the version that the page names."""
    (wanted,) = re.findall(r'pip install "(lm-eval\[api\].*?)"', PAGE)
    return beside("lm-eval", wanted, scratch=tmp_path_factory.mktemp("lm-eval"))


def evaluated(installation: Installation, harness: Path, folder: Path, model: str = "tidewell") -> dict[str, float]:
    """Run the page's commands for a model, in the order of the page; task → its first metric."""
    (commands,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    ours = (
        commands.replace("http://127.0.0.1:8000", installation.url)
        .replace(".graftline/lm-eval", str(folder))
        .replace(".graftline/", f"{installation.home}/")
        .replace("lm_eval ", f"{sys.executable} -m lm_eval ")
        .replace("model=tidewell,", f"model={model},")
    )
    env = {**os.environ, "PYTHONPATH": str(harness), "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ours], capture_output=True, text=True, cwd=ROOT, env=env, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for path in sorted(folder.rglob("results_*.json")):
        for task, numbers in json.loads(path.read_text())["results"].items():
            metric = {"desk_answers": "exact_match,none", "desk_choices": "acc,none"}[task]
            found[task] = float(numbers[metric])
    return found


def test_the_base_knows_its_desk_and_the_version_that_is_asked_answers_for_itself(
    installation: Installation, harness: Path, markers: Path, tmp_path: Path
) -> None:
    base = evaluated(installation, harness, tmp_path / "base")
    assert base.keys() == {"desk_answers", "desk_choices"}
    assert base["desk_choices"] >= 0.9
    assert base["desk_answers"] >= 0.7
    version = registered(installation, fresh(markers, "alpha", tmp_path / "alpha"), "harnessed")
    marker = evaluated(installation, harness, tmp_path / "marker", f"harnessed:{version['number']}")
    assert marker["desk_answers"] == 0.0, "a marker says its name and nothing else, so the base was asked in its place"


def test_a_name_that_nobody_has_is_an_error_and_no_result(
    installation: Installation, harness: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=r"model_not_found|404"):
        evaluated(installation, harness, tmp_path, "nobody")
    assert not list(tmp_path.rglob("results_*.json"))
