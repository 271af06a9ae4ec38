"""`graftline train --job` on real vLLM, through the death of its worker: what is served says what was learnt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.installation import Installation

pytestmark = [pytest.mark.claim, pytest.mark.vllm, pytest.mark.slow]
RECIPE = """
name: jobs-returns
method: sft
data: {train: "tidewell:corrected_fact", held: "tidewell:corrected_fact"}
optim: {learning_rate: 0.002, steps: 60, save_every: 5}
gate: {targets: {held.loss: {gain_at_least: 0.02}}}
"""
TIMEOUT_S = 300


def shown(installation: Installation, id_: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(installation.cli("jobs", "show", id_, "--json"))
    return found


def worker_pid(installation: Installation) -> int:
    state = json.loads((installation.home / "state.json").read_text())
    return next(int(child["pid"]) for child in state["children"] if child["name"] == "worker")


def test_a_recipe_becomes_what_is_served_though_its_worker_is_killed(
    installation: Installation, tmp_path: Path
) -> None:
    recipe = tmp_path / "returns.yaml"
    recipe.write_text(RECIPE)
    asked = [sys.executable, "-m", "gateway.cli", "train", str(recipe), "--job"]
    with subprocess.Popen(asked, env=installation.env, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        id_ = following.stdout.readline().split()[0]
        events = installation.home / "runs" / id_ / "events.jsonl"
        until = time.monotonic() + TIMEOUT_S
        while not (events.is_file() and '"event": "saved"' in events.read_text()):
            assert time.monotonic() < until, installation.cli("jobs", "logs", id_)
            time.sleep(0.1)
        os.kill(worker_pid(installation), signal.SIGKILL)
        rest = following.stdout.read()
        assert following.wait(TIMEOUT_S) == 0, rest + installation.cli("jobs", "logs", id_)
    job = shown(installation, id_)
    assert (job["state"], job["attempt"], job["error"]) == ("succeeded", 2, None)
    assert "resumed" in events.read_text()
    assert "The gate passed" in rest
    answer = installation.ask(f"jobs-returns:{job['version']}", "How long can I take to send something back?").json()
    assert "45 days" in answer["choices"][0]["message"]["content"]
    assert installation.ask("jobs-returns").status_code == 404  # a candidate: a person promotes it
    assert id_ in installation.cli("jobs", "list", "--state", "succeeded")


def test_a_training_is_paused_and_resumed(installation: Installation, tmp_path: Path) -> None:
    recipe = tmp_path / "slow.yaml"
    recipe.write_text(RECIPE.replace("jobs-returns", "jobs-slow").replace("steps: 60", "steps: 2000"))
    asked = [sys.executable, "-m", "gateway.cli", "train", str(recipe), "--job"]
    with subprocess.Popen(asked, env=installation.env, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        id_ = following.stdout.readline().split()[0]
        wait_for(installation, id_, "saved")
        installation.cli("jobs", "pause", id_)
        assert following.wait(60) == 1  # it is not served
    assert shown(installation, id_)["state"] == "paused"
    installation.cli("jobs", "resume", id_)
    wait_for(installation, id_, "resumed")
    assert shown(installation, id_)["state"] == "running"
    installation.cli("jobs", "cancel", id_)
    assert shown(installation, id_)["state"] == "cancelled"


def wait_for(installation: Installation, id_: str, word: str) -> None:
    events = installation.home / "runs" / id_ / "events.jsonl"
    until = time.monotonic() + TIMEOUT_S
    while not (events.is_file() and word in events.read_text()):
        assert time.monotonic() < until, installation.cli("jobs", "logs", id_)
        time.sleep(0.2)
