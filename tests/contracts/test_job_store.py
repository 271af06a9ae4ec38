"""What every store of jobs does: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from monitoring.database import connect, reading, revision
from training.jobs import sql
from training.jobs.asking import cancel, pause, resume
from training.jobs.errors import JobConflict, JobNotFound, JobsUnavailable
from training.jobs.store import Jobs, MemoryJobs
from training.jobs.turns import Holder
from training.jobs.values import Checkpoint, Job, JobError, JobEvent, JobState, Phase

NOW = 1_800_000_000.0
STALE_S = 30.0
ONE = Job(
    id="ftjob-1", tenant="acme", owner="ann", name="support", created_at=NOW, training_file="file-1",
    recipe={"name": "support", "method": "sft", "data": {"train": "file-1"}, "optim": {"learning_rate": 2e-4}},
    asked={"model": "tidewell", "training_file": "file-1", "metadata": {"süß": "🙂"}}, model="tidewell",
    suffix="süß", seed=7, metadata={"team": "🙂"}, idem="key-1",
)  # fmt: skip
QUEUED = replace(ONE, state=JobState.QUEUED)


def on(url: str) -> Iterator[Jobs]:
    engine = connect(url)
    store = sql.SqlJobs(engine)
    with engine.begin() as connection:
        for table in (sql.EVENTS, sql.CHECKPOINTS, sql.JOBS):
            connection.execute(sa.delete(table))
    yield store
    engine.dispose()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Jobs]:
    if request.param == "memory":
        yield MemoryJobs()
    elif request.param == "sqlite":
        yield from on(f"sqlite:///{tmp_path}/control.db")
    else:
        yield from on(request.getfixturevalue("postgres_url"))


def test_what_was_created_is_read_back_whole(jobs: Jobs) -> None:
    assert jobs.create(ONE) == ONE
    assert jobs.get(ONE.id) == ONE
    assert jobs.list() == jobs.list("acme") == jobs.list(state=JobState.VALIDATING) == (ONE,)
    assert jobs.list("other") == jobs.list(state=JobState.QUEUED) == ()


def test_the_same_key_of_a_tenant_gives_the_job_that_there_is(jobs: Jobs) -> None:
    jobs.create(ONE)
    assert jobs.create(replace(ONE, id="ftjob-2", suffix="other")) == ONE
    assert jobs.create(replace(ONE, id="ftjob-3", tenant="other")).id == "ftjob-3"
    assert jobs.create(replace(ONE, id="ftjob-4", idem="")).id == "ftjob-4"
    assert jobs.create(replace(ONE, id="ftjob-5", idem="")).id == "ftjob-5"
    assert len(jobs.list()) == 4


def test_two_creates_at_once_make_one_job(jobs: Jobs) -> None:
    made: list[Job] = []
    threads = [
        threading.Thread(target=lambda n=n: made.append(jobs.create(replace(ONE, id=f"ftjob-{n}")))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job in made}) == 1
    assert len(jobs.list()) == 1


def test_pages_go_from_the_newest_on(jobs: Jobs) -> None:
    for n in range(5):
        jobs.create(replace(ONE, id=f"ftjob-{n}", idem="", created_at=NOW + n // 2))
    seen = [job.id for job in jobs.list("acme", limit=2)]
    assert seen == ["ftjob-4", "ftjob-3"]
    assert [job.id for job in jobs.list("acme", after="ftjob-3", limit=9)] == ["ftjob-2", "ftjob-1", "ftjob-0"]
    assert jobs.list("acme", after="ftjob-0") == ()
    with pytest.raises(JobNotFound):
        jobs.list("acme", after="ftjob-9")


def test_what_is_not_there_is_not_found(jobs: Jobs) -> None:
    for ask in (
        lambda: jobs.get("ftjob-1"),
        lambda: jobs.beat("ftjob-1", "w", 1, NOW),
        lambda: jobs.move("ftjob-1", JobState.QUEUED, expected=JobState.VALIDATING, now=NOW),
        lambda: jobs.events("ftjob-1"),
        lambda: jobs.checkpoints("ftjob-1"),
    ):
        with pytest.raises(JobNotFound, match="ftjob-1"):
            ask()
    assert jobs.claim("w", now=NOW, stale_s=STALE_S) is None


def test_the_oldest_that_waits_is_claimed_first_and_by_one_worker(jobs: Jobs) -> None:
    jobs.create(replace(QUEUED, id="ftjob-2", idem="", created_at=NOW + 1))
    jobs.create(QUEUED)
    jobs.create(replace(ONE, id="ftjob-3", idem=""))  # its files are not looked at yet
    first = jobs.claim("one", now=NOW + 5, stale_s=STALE_S)
    assert first is not None
    assert (first.id, first.state, first.worker, first.attempt) == ("ftjob-1", JobState.RUNNING, "one", 1)
    assert (first.heartbeat_at, first.started_at) == (NOW + 5, NOW + 5)
    assert jobs.get("ftjob-1") == first
    second = jobs.claim("two", now=NOW + 5, stale_s=STALE_S)
    assert second is not None
    assert second.id == "ftjob-2"
    assert jobs.claim("three", now=NOW + 5, stale_s=STALE_S) is None


def test_tenants_take_turns_however_many_jobs_one_of_them_has(jobs: Jobs) -> None:
    for n in range(3):
        jobs.create(replace(QUEUED, id=f"ftjob-{n}", idem="", created_at=NOW + n))
    jobs.create(replace(QUEUED, id="ftjob-8", tenant="other", created_at=NOW + 8))
    jobs.create(replace(QUEUED, id="ftjob-9", tenant="other", idem="", created_at=NOW + 9))
    taken = [jobs.claim("one", now=NOW + 10 + n, stale_s=STALE_S) for n in range(5)]
    assert [job.id for job in taken if job is not None] == ["ftjob-0", "ftjob-8", "ftjob-1", "ftjob-9", "ftjob-2"]
    jobs.create(replace(QUEUED, id="ftjob-7", tenant="new", created_at=NOW))
    orphan = jobs.claim("two", now=NOW + 11 + STALE_S, stale_s=STALE_S)  # what has begun goes first
    assert orphan is not None
    assert orphan.id == "ftjob-0"


def test_many_workers_that_claim_at_once_get_each_job_once(jobs: Jobs) -> None:
    for n in range(8):
        jobs.create(replace(QUEUED, id=f"ftjob-{n}", idem=""))
    taken: list[str] = []

    def work(name: str) -> None:
        while (job := jobs.claim(name, now=NOW, stale_s=STALE_S)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"ftjob-{n}" for n in range(8)]


def test_a_job_is_free_again_when_its_worker_falls_silent(jobs: Jobs) -> None:
    jobs.create(QUEUED)
    held = jobs.claim("one", now=NOW, stale_s=STALE_S)
    assert held is not None
    assert jobs.beat(held.id, "one", 1, NOW + 20)
    assert jobs.get(held.id).heartbeat_at == NOW + 20
    assert jobs.claim("two", now=NOW + 20 + STALE_S, stale_s=STALE_S) is None
    again = jobs.claim("two", now=NOW + 21 + STALE_S, stale_s=STALE_S)
    assert again is not None
    assert (again.worker, again.attempt, again.state, again.started_at) == ("two", 2, JobState.RUNNING, NOW)
    assert not jobs.beat(held.id, "one", 1, NOW + 60)
    assert jobs.beat(held.id, "two", 2, NOW + 60)


def test_the_same_worker_at_another_attempt_is_another_holder(jobs: Jobs) -> None:
    jobs.create(QUEUED)
    jobs.claim("one", now=NOW, stale_s=STALE_S)
    jobs.claim("one", now=NOW + 99, stale_s=STALE_S)
    assert not jobs.beat("ftjob-1", "one", 1, NOW + 99)
    with pytest.raises(JobConflict, match="attempt 2"):
        jobs.move(
            "ftjob-1", JobState.RUNNING, expected=JobState.RUNNING, now=NOW, holder=Holder(worker="one", attempt=1)
        )


def test_a_move_is_a_compare_and_set_and_says_where_the_job_stands(jobs: Jobs) -> None:
    jobs.create(ONE)
    queued = jobs.move(ONE.id, JobState.QUEUED, expected=JobState.VALIDATING, now=NOW)
    assert queued == jobs.get(ONE.id) == QUEUED
    with pytest.raises(JobConflict, match="queued"):
        jobs.move(ONE.id, JobState.QUEUED, expected=JobState.VALIDATING, now=NOW)
    with pytest.raises(JobConflict, match="cannot become succeeded"):
        jobs.move(ONE.id, JobState.SUCCEEDED, expected=JobState.QUEUED, now=NOW)
    assert jobs.get(ONE.id) == QUEUED


def test_what_changes_with_a_move_is_kept(jobs: Jobs) -> None:
    jobs.create(QUEUED)
    jobs.claim("one", now=NOW, stale_s=STALE_S)
    holder = Holder(worker="one", attempt=1)
    moved = jobs.move(
        ONE.id, JobState.RUNNING, expected=JobState.RUNNING, now=NOW, holder=holder, phase=Phase.EVALUATE, version=3,
        trained_tokens=1234, handle="local:1", finish_at=NOW + 9, generation=2,
    )  # fmt: skip
    assert moved == jobs.get(ONE.id)
    assert (moved.phase, moved.version, moved.trained_tokens, moved.generation) == (Phase.EVALUATE, 3, 1234, 2)
    error = JobError(code="gate_failed", message="facts fell", param="")
    over = jobs.move(
        ONE.id, JobState.FAILED, expected=JobState.RUNNING, now=NOW + 5, error=error, result_files=("file-9",)
    )
    assert (over.error, over.result_files, over.finished_at) == (error, ("file-9",), NOW + 5)
    assert (over.worker, over.handle, over.finish_at, over.over) == ("", "", None, True)
    assert jobs.get(ONE.id) == over
    assert not jobs.beat(ONE.id, "one", 1, NOW + 6)


def test_what_is_over_stays_over(jobs: Jobs) -> None:
    jobs.create(QUEUED)
    cancel(jobs, ONE.id, now=NOW + 1)
    with pytest.raises(JobConflict, match="It is over"):
        cancel(jobs, ONE.id, now=NOW + 2)
    with pytest.raises(JobConflict, match="It is over"):
        resume(jobs, ONE.id, now=NOW + 2)
    assert jobs.claim("one", now=NOW + 2, stale_s=STALE_S) is None
    assert [event.message for event in jobs.events(ONE.id)] == ["The job was cancelled."]


def test_a_running_job_pauses_when_its_worker_obeys_and_a_waiting_one_at_once(jobs: Jobs) -> None:
    jobs.create(QUEUED)
    assert pause(jobs, ONE.id, now=NOW).state is JobState.PAUSED
    assert pause(jobs, ONE.id, now=NOW).state is JobState.PAUSED
    assert jobs.claim("one", now=NOW, stale_s=STALE_S) is None
    assert resume(jobs, ONE.id, now=NOW).state is JobState.QUEUED
    jobs.claim("one", now=NOW, stale_s=STALE_S)
    assert pause(jobs, ONE.id, now=NOW).state is JobState.PAUSING
    assert jobs.beat(ONE.id, "one", 1, NOW + 1)
    assert jobs.claim("two", now=NOW + 2, stale_s=STALE_S) is None
    taken = jobs.claim("two", now=NOW + 99, stale_s=STALE_S)  # its worker died before it obeyed
    assert taken is not None
    assert (taken.state, taken.attempt) == (JobState.PAUSING, 2)


def test_a_job_that_goes_on_forgets_what_made_it_pause(jobs: Jobs) -> None:
    jobs.create(QUEUED)
    jobs.claim("one", now=NOW, stale_s=STALE_S)
    pause(jobs, ONE.id, now=NOW)
    full = JobError(code="disk_full", message="no room")
    assert jobs.move(ONE.id, JobState.PAUSED, expected=JobState.PAUSING, now=NOW, error=full).error == full
    assert resume(jobs, ONE.id, now=NOW).error is None


def event(n: int, **changes: object) -> JobEvent:
    made = JobEvent(
        id=f"e{n}", job=ONE.id, at=NOW + n, message=f"step {n} 🙂", kind="metrics", data={"train_loss": 0.5}
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_events_are_told_once_and_listed_from_either_end(jobs: Jobs) -> None:
    jobs.create(ONE)
    jobs.say([event(n) for n in range(4)])
    jobs.say([event(2, message="again"), event(4)])
    jobs.say([])
    newest = jobs.events(ONE.id, limit=2)
    assert newest == (event(4), event(3))
    assert jobs.events(ONE.id, "e3", 9) == (event(2), event(1), event(0))
    assert jobs.events(ONE.id, "", 2, oldest_first=True) == (event(0), event(1))
    assert jobs.events(ONE.id, "e1", 9, oldest_first=True) == (event(2), event(3), event(4))
    assert jobs.events(ONE.id, "e4", 9, oldest_first=True) == ()


def test_checkpoints_are_listed_from_the_last_step_and_replaced_by_their_id(jobs: Jobs) -> None:
    jobs.create(ONE)
    one = Checkpoint(id="c1", job=ONE.id, at=NOW, step=20, metrics={"train_loss": 0.5}, folder="/runs/1")
    two = Checkpoint(id="c2", job=ONE.id, at=NOW + 1, step=40)
    for made in (one, two, replace(one, at=NOW + 2)):
        jobs.checkpoint(made)
    assert jobs.checkpoints(ONE.id) == (two, replace(one, at=NOW + 2))
    assert jobs.checkpoints(ONE.id, limit=1) == (two,)
    assert jobs.checkpoints(ONE.id, "c2") == (replace(one, at=NOW + 2),)


def test_no_gateway_reads_its_snapshot_anew_for_a_job(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    jobs = sql.SqlJobs(engine)
    with reading(engine).begin() as connection:
        before = revision(connection)
    jobs.create(QUEUED)
    jobs.claim("one", now=NOW, stale_s=STALE_S)
    jobs.say([event(1)])
    with reading(engine).begin() as connection:
        assert revision(connection) == before
    engine.dispose()


def test_a_database_that_is_away_is_said_so(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    jobs = sql.SqlJobs(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE job_events"))
        connection.execute(sa.text("DROP TABLE job_checkpoints"))
        connection.execute(sa.text("DROP TABLE jobs"))
    with pytest.raises(JobsUnavailable, match="Nothing was changed") as caught:
        jobs.get(ONE.id)
    assert caught.value.retryable
    engine.dispose()
