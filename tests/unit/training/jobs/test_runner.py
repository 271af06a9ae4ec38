"""What a worker does with jobs, over a house and a launcher that do as the test says."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import Rejected, Unavailable
from tests.unit.training.jobs.places import FakeLauncher, FakeRun, Works, saved, stepped, tell, trained, works
from training.jobs import asking
from training.jobs.errors import JobRefused
from training.jobs.means import Place, Ruling, Terms
from training.jobs.values import JobState, Phase
from training.launchers.errors import LauncherAway
from training.recipes.errors import BadRecipe


@pytest.fixture
def at(tmp_path: Path) -> Works:
    return Works(tmp_path / "runs", launcher=FakeLauncher(works))


def test_a_job_goes_from_its_files_to_what_is_served(at: Works) -> None:
    at.ask()
    job = at.until(JobState.SUCCEEDED)
    assert (job.version, job.generation, job.trained_tokens, job.result_files) == (3, 2, 1280, ("file-1",))
    assert (job.error, job.worker, job.handle, job.attempt) == (None, "", "", 1)
    assert job.finished_at == at.clock()
    assert at.ended == [job]
    assert [run.spec.module for run in at.launcher.runs] == ["training.recipes"]
    assert [run.spec.module for run in at.near.runs] == ["training.evaluation"]
    said = at.said()
    assert said[0] == "Files validated, moving job to queued state"
    assert said[1] == "Fine-tuning job started"
    assert said[-1] == "The job has successfully completed"
    assert "Step 20/20: training loss=0.05" in said
    assert [point.step for point in at.jobs.checkpoints(job.id)] == [20, 10]
    assert at.jobs.checkpoints(job.id)[0].metrics["train_loss"] == 0.05
    assert at.runner.running == 0


@pytest.mark.parametrize("rounds", range(1, 9))
def test_whenever_its_worker_dies_the_next_one_goes_on(rounds: int, at: Works) -> None:
    at.ask()
    at.go(rounds)
    at.again()
    at.clock.now += at.terms.stale_s + 1
    job = at.until(JobState.SUCCEEDED)
    assert job.version == 3
    assert len(at.launcher.runs) <= 2
    assert at.said().count("Step 20/20: training loss=0.05") == 1  # told once, though it was read again


def test_a_training_that_came_to_its_end_is_not_repeated(at: Works) -> None:
    at.launcher.script = lambda run: None
    at.ask()
    at.go(3)
    (run,) = at.launcher.runs
    trained(at.folder())  # and the worker dies with it, before it has seen that
    run.code = -9
    at.again()
    at.clock.now += at.terms.stale_s + 1
    at.until(JobState.SUCCEEDED)
    assert len(at.launcher.runs) == 1


def test_what_a_killed_training_left_half_written_is_made_again(at: Works) -> None:
    at.launcher.script = lambda run: None
    at.ask()
    at.go(3)
    trained(at.folder(), said=False)
    (at.folder() / "events.jsonl").write_bytes(b'{"event": "stepped", "st')
    at.launcher.runs[0].code = -9

    def second(run: FakeRun) -> None:
        assert not (at.folder() / "adapter").exists()
        assert not (at.folder() / "run.json").exists()
        works(run)

    at.launcher.script = second
    at.until(JobState.SUCCEEDED)
    assert len(at.launcher.runs) == 2
    assert any("by signal 9" in line for line in at.said())


def test_a_training_that_says_why_it_failed_fails_the_job_with_its_words(at: Works) -> None:
    def fails(run: FakeRun) -> None:
        tell(run.spec.folder, {"event": "failed", "code": "bad_rows", "message": "row 3: no prompt"})
        run.code = 1

    at.launcher.script = fails
    at.ask()
    job = at.until(JobState.FAILED)
    assert job.error is not None
    assert (job.error.code, job.error.message, job.error.param) == ("bad_rows", "row 3: no prompt", "training_file")
    assert at.ended == [job]


def test_a_full_disk_pauses_and_the_job_goes_on_once_there_is_room(at: Works) -> None:
    def full(run: FakeRun) -> None:
        tell(run.spec.folder, stepped(5), saved(5), {"event": "failed", "code": "disk_full", "message": "no room"})
        run.code = 1

    at.launcher.script = full
    at.ask()
    job = at.until(JobState.PAUSED)
    assert job.error is not None
    assert job.error.code == "disk_full"
    assert at.ended == []
    at.launcher.script = works
    asking.resume(at.jobs, job.id, now=at.clock())
    assert at.until(JobState.SUCCEEDED).error is None


def test_a_process_that_dies_is_started_again_as_long_as_it_comes_further(at: Works) -> None:
    starts = 0

    def dies(run: FakeRun) -> None:
        nonlocal starts
        starts += 1
        if starts == 7:
            works(run)
            return
        tell(run.spec.folder, stepped(starts), saved(starts))
        run.code = -9

    at.launcher.script = dies
    at.ask()
    at.until(JobState.SUCCEEDED)
    assert starts == 7


def test_a_process_that_dies_without_coming_further_is_given_up(at: Works) -> None:
    def dies(run: FakeRun) -> None:
        run.code = -9

    at.launcher.script = dies
    at.ask()
    job = at.until(JobState.FAILED)
    assert job.error is not None
    assert job.error.code == "training_ended"
    assert "memory" in job.error.message
    assert len(at.launcher.runs) == at.terms.restarts_max + 1


def test_a_paused_training_ends_and_begins_again_when_it_is_resumed(at: Works) -> None:
    at.launcher.script = lambda run: tell(run.spec.folder, stepped(7), saved(5))
    at.ask()
    at.go(4)
    asking.pause(at.jobs, "ftjob-1", now=at.clock())
    assert at.go(3).state is JobState.PAUSED
    (run,) = at.launcher.runs
    assert (run.asked, run.code) == ([False], -15)
    assert "The job is paused after step 7." in at.said()
    assert at.go(5).state is JobState.PAUSED
    at.launcher.script = works
    asking.resume(at.jobs, "ftjob-1", now=at.clock())
    assert at.until(JobState.SUCCEEDED).attempt == 2
    assert not any("ended by signal" in line for line in at.said())


def test_a_process_that_does_not_listen_is_ended(at: Works) -> None:
    def deaf(run: FakeRun) -> None:
        run.deaf = True

    at.launcher.script = deaf
    at.ask()
    at.go(4)
    asking.pause(at.jobs, "ftjob-1", now=at.clock())
    at.go(5)
    assert at.job().state is JobState.PAUSING
    at.go(int(at.terms.grace_s) + 2)
    assert at.job().state is JobState.PAUSED
    assert at.launcher.runs[0].asked == [False, True]


def test_a_cancelled_training_ends(at: Works) -> None:
    at.launcher.script = lambda run: None
    at.ask()
    at.go(4)
    asking.cancel(at.jobs, "ftjob-1", now=at.clock())
    at.go(3)
    assert at.launcher.runs[0].code == -15
    assert (at.job().state, at.runner.running) == (JobState.CANCELLED, 0)
    assert at.house.abandoned == {}


def test_what_a_cancelled_job_had_published_is_given_up(at: Works) -> None:
    at.house.place = Place.WAITING
    at.ask()
    at.go(8)
    assert (at.job().phase, at.job().version) == (Phase.EVALUATE, 3)
    asking.cancel(at.jobs, "ftjob-1", now=at.clock())
    at.go(2)
    assert at.house.abandoned == {"ftjob-1": "its job was cancelled"}


def test_what_was_published_is_given_up_though_no_worker_saw_the_cancellation(at: Works) -> None:
    at.house.place = Place.WAITING
    at.ask()
    at.go(8)
    asking.cancel(at.jobs, "ftjob-1", now=at.clock())
    at.again()
    at.go(1)
    assert at.house.abandoned == {"ftjob-1": "its job was cancelled"}


def test_a_closed_gate_fails_the_job_with_its_reasons_and_its_report(at: Works) -> None:
    at.house.ruling = Ruling(passed=False, reasons=("facts.right fell by 0.2", "held.loss rose"))
    at.ask()
    job = at.until(JobState.FAILED)
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("gate_failed", "facts.right fell by 0.2; held.loss rose")
    assert job.result_files == ("file-1",)
    assert at.house.abandoned == {job.id: "facts.right fell by 0.2; held.loss rose"}


def test_a_job_succeeds_only_when_its_version_is_served(at: Works) -> None:
    at.house.place = Place.HELD
    at.ask()
    at.go(20)
    assert (at.job().state, at.job().phase) == (JobState.RUNNING, Phase.DECIDE)
    assert at.house.asked.count("decide") == 1
    at.house.place = Place.SERVING
    at.until(JobState.SUCCEEDED)


def test_a_version_that_the_engines_reject_fails_the_job(at: Works) -> None:
    at.house.place = Place.REJECTED
    at.ask()
    job = at.until(JobState.FAILED)
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("rejected", "because")
    assert at.near.runs == []


def test_who_waits_long_for_an_engine_is_told(at: Works) -> None:
    at.house.place = Place.WAITING
    at.ask()
    at.go(90)
    assert at.said().count("support:3 waits: because") == 1


@pytest.mark.parametrize("where", ["prepare", "publish", "standing", "plan", "decide", "attach"])
def test_what_may_pass_is_waited_out(where: str, at: Works) -> None:
    at.house.raising[where] = Unavailable("the database is away")
    at.ask()
    at.go(20)
    assert at.job().state is JobState.RUNNING
    assert sum("the database is away" in line for line in at.said()) == 1
    at.house.raising.clear()
    at.until(JobState.SUCCEEDED)


def test_what_cannot_pass_ends_the_job(at: Works) -> None:
    at.house.raising["publish"] = Rejected(())
    at.ask()
    job = at.until(JobState.FAILED)
    assert job.error is not None
    assert job.error.code == Rejected.code


def test_files_that_are_looked_at_are_waited_for(at: Works) -> None:
    at.house.is_ready = False
    at.ask()
    assert at.go(3).state is JobState.VALIDATING
    at.house.is_ready = True
    assert at.go(1).state is JobState.RUNNING


@pytest.mark.parametrize(
    ("error", "code", "param"),
    [
        (JobRefused("line 3 is bad", code="invalid_training_file", param="validation_file"),
         "invalid_training_file", "validation_file"),
        (BadRecipe(["name: is missing"]), "bad_recipe", ""),
    ],
)  # fmt: skip
def test_a_job_that_can_never_run_is_refused_before_it_runs(error: Exception, code: str, param: str, at: Works) -> None:
    at.house.raising["ready"] = error
    at.ask()
    job = at.go(1)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.param) == (code, param)
    assert at.launcher.runs == []


def test_no_more_run_at_once_than_may(at: Works) -> None:
    at.terms = Terms(at_once=2, memory_gib=6.0)
    at.again()
    at.launcher.script = lambda run: None
    for n in range(4):
        at.ask(f"ftjob-{n}")
    at.go(5)
    assert at.runner.running == len(at.launcher.runs) == 2
    assert at.launcher.runs[0].spec.args[-2:] == ("--memory-gib", "3")
    at.launcher.script = works
    for run in list(at.launcher.runs):
        works(run)
    at.go(20)
    assert {at.job(f"ftjob-{n}").state for n in range(4)} == {JobState.SUCCEEDED}


def test_a_worker_whose_job_was_taken_over_ends_its_process_at_once(at: Works) -> None:
    at.launcher.script = lambda run: None
    at.ask()
    at.go(4)
    first = at.runner
    at.clock.now += at.terms.stale_s + 1  # it stood still for so long
    at.again()
    at.go(3)
    first.beat()
    first.step()
    assert [run.asked for run in at.launcher.runs[:1]] == [[True]]
    assert first.running == 0
    assert at.job().worker == "worker-2"


def test_a_run_that_outlives_its_worker_is_found_again(at: Works) -> None:
    at.terms = Terms(outlives=True)
    at.again()
    at.launcher.script = lambda run: None
    at.ask()
    at.go(4)
    at.runner.close()
    assert (at.job().state, at.job().handle) == (JobState.QUEUED, "fake:0")
    at.again()
    at.go(2)
    (run,) = at.launcher.runs
    assert run.asked == []
    works(run)
    at.until(JobState.SUCCEEDED)


def test_a_worker_that_ends_gives_its_jobs_back_once_their_processes_have_ended(at: Works) -> None:
    at.launcher.script = lambda run: None
    at.ask()
    at.go(4)
    at.runner.close()
    assert at.launcher.runs[0].code == -15
    assert (at.job().state, at.job().worker, at.job().phase) == (JobState.QUEUED, "", Phase.TRAIN)
    at.again()
    at.launcher.script = works
    assert at.until(JobState.SUCCEEDED).attempt == 2  # at once, not when its heartbeat is too old
    assert not any("ended by signal" in line for line in at.said())


def test_a_launcher_that_cannot_say_is_asked_again_and_nothing_is_started_twice(at: Works) -> None:
    at.launcher.script = lambda run: None
    at.ask()
    at.go(4)
    (run,) = at.launcher.runs
    poll = run.poll

    def away() -> int | None:
        raise LauncherAway("the cluster does not answer")

    run.poll = away  # type: ignore[method-assign]
    at.go(10)
    assert at.job().state is JobState.RUNNING
    assert len(at.launcher.runs) == 1
    run.poll = poll  # type: ignore[method-assign]
    works(run)
    at.until(JobState.SUCCEEDED)


def test_an_evaluation_that_says_why_it_failed_fails_the_job(at: Works) -> None:
    def fails(run: FakeRun) -> None:
        line = '{"event": "failed", "code": "bad_suite", "message": "no rows", "retryable": false}\n'
        run.spec.log.write_text("a line of a library\n" + line)
        run.code = 1

    at.near.script = fails
    at.ask()
    job = at.until(JobState.FAILED)
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("bad_suite", "no rows")
    assert len(at.near.runs) == 1
    assert at.house.abandoned == {job.id: "no rows"}


def test_an_evaluation_that_may_succeed_later_is_made_again(at: Works) -> None:
    def away(run: FakeRun) -> None:
        run.spec.log.write_text(
            '{"event": "failed", "code": "evaluation_engine_away", "message": "", "retryable": true}'
        )
        run.code = 1
        at.near.script = works

    at.near.script = away
    at.ask()
    at.until(JobState.SUCCEEDED)
    assert len(at.near.runs) == 2


def test_a_reward_model_is_a_result_and_no_version(at: Works) -> None:
    def rewards(run: FakeRun) -> None:
        trained(run.spec.folder, method="reward")
        run.code = 0

    at.launcher.script = rewards
    at.ask()
    job = at.until(JobState.SUCCEEDED)
    assert (job.version, job.result_files) == (None, ("file-1",))
    assert "publish" not in at.house.asked


def test_the_time_that_is_left_is_foreseen_from_the_steps(at: Works) -> None:
    at.launcher.script = lambda run: tell(run.spec.folder, stepped(1))
    at.ask()
    at.go(4)
    at.clock.now += 30
    tell(at.folder(), stepped(10))
    job = at.go(1)
    assert job.finish_at is not None
    assert at.clock() + 25 < job.finish_at < at.clock() + 45


def test_a_job_that_ends_all_its_workers_is_given_up(at: Works) -> None:
    at.terms = Terms(attempts_max=3)
    at.launcher.script = lambda run: None
    at.ask()
    for _ in range(4):
        at.again()
        at.go(3)
        at.clock.now += at.terms.stale_s + 1
    job = at.job()
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "too_many_attempts"
