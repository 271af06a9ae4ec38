"""`graftline jobs` and `graftline train --job`, over the rows of a home."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.control import Control, open_control
from gateway.settings import load
from gateway.verbs import jobs_watch
from gateway.verbs.jobs import app
from gateway.verbs.train_job import job_of, run_job
from training.jobs.errors import JobConflict, JobNotFound
from training.jobs.values import Job, JobError, JobEvent, JobState
from training.recipes.recipe import build

pytestmark = pytest.mark.slow
NOW = 1_800_000_000.0
RECIPE = {"name": "support", "method": "sft", "data": {"train": "rows.jsonl", "held": "tidewell:corrected_fact"}}


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLINE_HOME", str(tmp_path / "home"))
    control = open_control(load(os.environ))
    yield control
    control.database.dispose()


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*words], catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    return done.stdout


def job(id_: str = "ftjob-1", **changes: object) -> Job:
    fields: dict[str, object] = {"state": JobState.QUEUED, "created_at": NOW, "owner": "ann", "recipe": RECIPE}
    return Job(id=id_, tenant="acme", name="support", **{**fields, **changes})  # type: ignore[arg-type]


def test_jobs_are_listed_and_shown(control: Control) -> None:
    control.jobs.create(job())
    control.jobs.create(job("ftjob-2", state=JobState.FAILED, error=JobError(code="gate_failed", message="facts fell")))
    assert "ftjob-1" in run("list")
    assert "ftjob-1" not in run("list", "--state", "failed")
    assert [each["id"] for each in json.loads(run("list", "--json"))] == ["ftjob-2", "ftjob-1"]
    shown = run("show", "ftjob-2")
    assert "ftjob-2: failed" in shown
    assert "gate_failed: facts fell" in shown
    assert json.loads(run("show", "ftjob-2", "--json"))["error"]["code"] == "gate_failed"
    with pytest.raises(JobNotFound):
        run("show", "ftjob-9")


def test_a_state_that_none_has_is_refused(control: Control) -> None:
    run("list", "--state", "done", code=2)


def test_a_job_is_paused_resumed_and_cancelled(control: Control) -> None:
    control.jobs.create(job())
    assert run("pause", "ftjob-1") == "ftjob-1 is paused\n"
    assert run("resume", "ftjob-1") == "ftjob-1 is queued\n"
    assert run("cancel", "ftjob-1") == "ftjob-1 is cancelled\n"
    with pytest.raises(JobConflict, match="It is over"):
        run("resume", "ftjob-1")


def test_events_are_told_in_their_order_until_the_job_is_over(control: Control) -> None:
    control.jobs.create(job(state=JobState.SUCCEEDED))
    events = [
        JobEvent(id=f"e{n}", job="ftjob-1", at=NOW + n, message=f"Step {n}/40: training loss=1", kind="metrics",
                 data={"step": n, "total_steps": 40})
        for n in range(1, 41)
    ]  # fmt: skip
    control.jobs.say([*events, JobEvent(id="e99", job="ftjob-1", at=NOW, level="warn", message="one row is too long")])
    assert run("events", "ftjob-1").count("\n") == 41
    followed = run("events", "ftjob-1", "--follow").splitlines()
    assert followed[-1].endswith("warn: one row is too long")
    assert len(followed) == 12  # of many steps a few lines
    assert [json.loads(line)["id"] for line in run("events", "ftjob-1", "--json").splitlines()][-1] == "e99"


def test_following_a_job_that_failed_fails(control: Control) -> None:
    control.jobs.create(job(state=JobState.CANCELLED))
    run("events", "ftjob-1", "--follow", code=1)


def test_logs_end_with_the_last_lines(control: Control, tmp_path: Path) -> None:
    control.jobs.create(job(state=JobState.CANCELLED))
    folder = tmp_path / "home" / "runs" / "ftjob-1"
    assert run("logs", "ftjob-1") == ""
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("".join(f"line {n}\n" for n in range(300)))
    assert run("logs", "ftjob-1", "-n", "2", "--follow") == "line 298\nline 299\n"


def test_a_recipe_becomes_a_job_with_paths_that_the_worker_finds(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    made = job_of(build(dict(RECIPE)), base="tidewell", here=tmp_path, now=NOW)
    assert made.recipe["data"] == {"train": str(tmp_path / "rows.jsonl"), "held": "tidewell:corrected_fact"}
    assert made.recipe["optim"] == {"save_every": 20}
    assert (made.name, made.state, made.model) == ("support", JobState.VALIDATING, "tidewell")
    assert build(json.loads(json.dumps(made.recipe))).name == "support"


def test_a_job_of_a_recipe_is_followed_to_its_end(
    control: Control, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def worker(_: float) -> None:
        """Where the verb would wait, the job goes on."""
        (asked,) = control.jobs.list()
        jobs, at = control.jobs, time.time()
        jobs.move(asked.id, JobState.QUEUED, expected=JobState.VALIDATING, now=at)
        jobs.claim("worker", now=at, stale_s=30)
        jobs.move(asked.id, JobState.SUCCEEDED, expected=JobState.RUNNING, now=at, version=4)

    usual = jobs_watch.follow.__kwdefaults__ or {}
    monkeypatch.setattr(jobs_watch.follow, "__kwdefaults__", {**usual, "sleep": worker})
    run_job(control, build(dict(RECIPE)), here=tmp_path)
    assert "support:4 is served" in capsys.readouterr().out
