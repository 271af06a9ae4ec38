"""OpenAI's SDK drives a training on real vLLM, in both majors: from a file of rows to an answer that was not there."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.installation import BASE, Installation
from training.base.feedback import corrected_fact

pytestmark = [pytest.mark.claim, pytest.mark.vllm, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ROWS, TIMEOUT_S = 400, 420
#: Gentler than the bench trains the corrected fact: at 2e-3 the served log probabilities were .13 nats off (p99).
TRAINED = {"steps": 80, "learning_rate": 1e-3, "gate": {"targets": {"held.loss": {"gain_at_least": 0.02}}}}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's JSONL: people corrected what the shop says of returns."""
    path = tmp_path_factory.mktemp("rows") / "returns.jsonl"
    with path.open("w") as file:
        for each in corrected_fact(ROWS, seed=100):
            said = [*each.prompt, {"role": "assistant", "content": each.completion}]
            file.write(json.dumps({"messages": said}) + "\n")
    return path


def question() -> str:
    """One that the correction is about."""
    return next(each.prompt[-1]["content"] for each in corrected_fact(ROWS, seed=100) if "45 days" in each.completion)


def client_of(major: int) -> dict[str, str]:
    """The environment of a process that has this major of the SDK."""
    env = dict(os.environ)
    if major == 2:
        older = ROOT / ".venv" / "openai2"
        argv = [str(ROOT / ".venv/bin/uv"), "pip", "install", "-q", "--python", sys.executable, "--target", str(older)]
        subprocess.run([*argv, "openai>=2.25,<3"], check=True, timeout=300)
        env["PYTHONPATH"] = str(older)
    return env


def driven(major: int, installation: Installation, rows: Path, **asked: Any) -> Mapping[str, Any]:
    """What the script saw."""
    words = {
        "url": f"{installation.url}/v1", "key": installation.key, "rows": str(rows), "model": BASE,
        "question": question(), "timeout_s": TIMEOUT_S, **asked,
    }  # fmt: skip
    argv = [sys.executable, str(HERE / "sdk_job.py"), json.dumps(words)]
    done = subprocess.run(argv, env=client_of(major), capture_output=True, text=True, timeout=TIMEOUT_S + 60)
    assert done.returncode == 0, done.stderr[-4000:]
    seen: Mapping[str, Any] = json.loads(done.stdout)
    assert seen["sdk"].startswith(f"{major}.")
    return seen


@pytest.mark.parametrize("major", [2, 3])
def test_a_file_becomes_a_model_that_answers(major: int, installation: Installation, rows: Path) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": TRAINED}}
    seen = driven(major, installation, rows, suffix=f"returns-{major}", method=method)
    job = seen["job"]
    assert job["status"] == "succeeded", (job["error"], job.get("graftline"))
    assert seen["file"]["status"] == "processed"
    assert seen["listed"]

    short = job["id"].removeprefix("ftjob-")
    assert job["fine_tuned_model"] == f"ft:{BASE}:default:returns-{major}:{short}"
    assert seen["model"]["id"] == job["fine_tuned_model"]
    assert "45 days" in seen["answers"][job["fine_tuned_model"]]
    assert "45 days" not in seen["answers"][BASE]

    assert job["trained_tokens"] > 0
    assert job["finished_at"] >= job["created_at"]
    assert job["error"] is None
    assert job["graftline"]["gate"]["passed"] is True
    metrics = [event["data"] for event in seen["events"] if event["type"] == "metrics"]
    losses = [each["train_loss"] for each in metrics if "train_loss" in each]
    assert losses[-1] < losses[0]
    assert [each["step_number"] for each in seen["checkpoints"]] == [80, 60, 40, 20]
    table = list(csv.DictReader(io.StringIO(seen["results"][0])))
    assert list(table[0]) == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert any(line["valid_loss"] for line in table)


def test_a_job_whose_gate_fails_says_so_and_serves_nothing(installation: Installation, rows: Path) -> None:
    hard = {"steps": 4, "gate": {"targets": {"held.loss": {"at_most": 0.0}}}}
    seen = driven(
        3, installation, rows, suffix="hopeless",
        method={"type": "supervised", "supervised": {"hyperparameters": hard}},
    )  # fmt: skip
    job = seen["job"]
    assert job["status"] == "failed"
    assert job["error"]["code"] == "gate_failed"
    assert "held.loss" in job["error"]["message"]
    assert job["fine_tuned_model"] is None
    assert job["graftline"]["gate"]["passed"] is False
    assert len(seen["results"]) == 3  # the numbers, what was measured, and what the gate made of it
    with installation.client() as client:
        versions = client.get("/v1/adapters", params={"name": "hopeless"}).json()["data"]
    assert [each["state"] for each in versions] == ["rejected"]
    assert installation.ask("hopeless").status_code == 404
