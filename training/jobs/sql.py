"""`Jobs` on SQLite and PostgreSQL. Each change locks the one row that it is about; nothing here moves the revision.

The document in `body` holds a job; what is asked for, and what a sign of life changes, stands in columns of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Unpack

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from monitoring.database import answering, migrate, reading
from training.jobs import turns
from training.jobs.errors import JobNotFound, JobsUnavailable
from training.jobs.turns import Fields, Holder, Wanted
from training.jobs.values import HELD, Checkpoint, Job, JobEvent, JobState

_META = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    _META,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(63), nullable=False, index=True),
    sa.Column("idem", sa.String(128)),
    sa.Column("state", sa.String(24), nullable=False, index=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("heartbeat_at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("tenant", "idem"),
)

EVENTS = sa.Table(
    "job_events",
    _META,
    sa.Column("seq", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("job", sa.String(64), sa.ForeignKey(JOBS.c.id), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("job_events_in_order", "job", "seq"),
)

CHECKPOINTS = sa.Table(
    "job_checkpoints",
    _META,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("job", sa.String(64), sa.ForeignKey(JOBS.c.id), nullable=False, index=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

STEPS = (_META.create_all,)

_JOB = TypeAdapter(Job)
_EVENT = TypeAdapter(JobEvent)
_CHECKPOINT = TypeAdapter(Checkpoint)


class SqlJobs:
    """Migrates its room when it is made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with answering("jobs'", JobsUnavailable):
            migrate(engine, "jobs", STEPS)

    def create(self, job: Job) -> Job:
        same = JOBS.c.id == job.id
        if job.idem:
            same |= (JOBS.c.tenant == job.tenant) & (JOBS.c.idem == job.idem)
        with self._changing() as connection:
            insert = _insert(connection)(JOBS).values(_row(job))
            connection.execute(insert.on_conflict_do_nothing())  # two that come at once: the second finds the first
            return _read(connection.execute(sa.select(JOBS).where(same)).one())

    def get(self, id_: str) -> Job:
        with self._reading() as connection:
            return _held(connection, id_)

    def list(
        self, tenant: str | None = None, *, after: str = "", limit: int = 20, state: JobState | None = None
    ) -> tuple[Job, ...]:
        query = sa.select(JOBS).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(JOBS.c.tenant == tenant)
        if state is not None:
            query = query.where(JOBS.c.state == str(state))
        with self._reading() as connection:
            if after:
                edge = _held(connection, after)
                before = sa.tuple_(sa.literal(edge.created_at), sa.literal(edge.id))
                query = query.where(sa.tuple_(JOBS.c.created_at, JOBS.c.id) < before)
            return tuple(_read(row) for row in connection.execute(query))

    def claim(self, worker: str, *, now: float, stale_s: float) -> Job | None:
        silent = JOBS.c.state.in_([str(state) for state in HELD]) & (JOBS.c.heartbeat_at < now - stale_s)
        others = JOBS.alias()
        last = sa.select(sa.func.max(others.c.heartbeat_at)).where(others.c.tenant == JOBS.c.tenant)
        served = last.correlate(JOBS).scalar_subquery()
        query = (
            sa.select(JOBS)
            .where((JOBS.c.state == str(JobState.QUEUED)) | silent)
            .order_by(JOBS.c.state == str(JobState.QUEUED), served, JOBS.c.created_at, JOBS.c.id)
            .limit(1)
        )
        with self._reading() as connection:  # mostly there is none, and nobody waits for a writer that looks
            if connection.execute(query).one_or_none() is None:
                return None
        with self._changing() as connection:
            row = connection.execute(query.with_for_update(skip_locked=True, of=JOBS)).one_or_none()
            if row is None:
                return None
            return _write(connection, turns.claimed(_read(row), worker, now=now))

    def beat(self, id_: str, worker: str, attempt: int, now: float) -> bool:
        with self._changing() as connection:
            if not turns.has(_held(connection, id_, lock=True), Holder(worker=worker, attempt=attempt)):
                return False
            connection.execute(sa.update(JOBS).where(JOBS.c.id == id_).values(heartbeat_at=now))
            return True

    def move(
        self,
        id_: str,
        state: JobState,
        *,
        expected: Wanted,
        now: float,
        holder: Holder | None = None,
        **fields: Unpack[Fields],
    ) -> Job:
        with self._changing() as connection:
            held = _held(connection, id_, lock=True)
            return _write(
                connection, turns.moved(held, state, expected=expected, now=now, holder=holder, fields=fields)
            )

    def say(self, events: Iterable[JobEvent]) -> None:
        rows = [{"id": each.id, "job": each.job, "body": _EVENT.dump_json(each).decode()} for each in events]
        if not rows:
            return
        with self._changing() as connection:
            connection.execute(_insert(connection)(EVENTS).on_conflict_do_nothing(), rows)

    def events(self, id_: str, after: str = "", limit: int = 20, *, oldest_first: bool = False) -> tuple[JobEvent, ...]:
        order = EVENTS.c.seq.asc() if oldest_first else EVENTS.c.seq.desc()
        query = sa.select(EVENTS.c.body).where(EVENTS.c.job == id_).order_by(order).limit(limit)
        with self._reading() as connection:
            _held(connection, id_)
            known = sa.select(EVENTS.c.seq).where((EVENTS.c.job == id_) & (EVENTS.c.id == after))
            if after and (edge := connection.scalar(known)) is not None:
                query = query.where(EVENTS.c.seq > edge if oldest_first else EVENTS.c.seq < edge)
            return tuple(_EVENT.validate_json(body) for body in connection.scalars(query))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        row = {
            "id": checkpoint.id,
            "job": checkpoint.job,
            "step": checkpoint.step,
            "body": _CHECKPOINT.dump_json(checkpoint).decode(),
        }
        with self._changing() as connection:
            new = _insert(connection)(CHECKPOINTS).values(row)
            connection.execute(new.on_conflict_do_update(index_elements=[CHECKPOINTS.c.id], set_=row))

    def checkpoints(self, id_: str, after: str = "", limit: int = 10) -> tuple[Checkpoint, ...]:
        query = sa.select(CHECKPOINTS.c.body).where(CHECKPOINTS.c.job == id_).order_by(CHECKPOINTS.c.step.desc())
        with self._reading() as connection:
            _held(connection, id_)
            known = sa.select(CHECKPOINTS.c.step).where((CHECKPOINTS.c.job == id_) & (CHECKPOINTS.c.id == after))
            if after and (edge := connection.scalar(known)) is not None:
                query = query.where(CHECKPOINTS.c.step < edge)
            return tuple(_CHECKPOINT.validate_json(body) for body in connection.scalars(query.limit(limit)))

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with answering("jobs'", JobsUnavailable), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with answering("jobs'", JobsUnavailable), reading(self._engine).begin() as connection:
            yield connection


def _insert(connection: Connection) -> Any:
    """The dialect's own INSERT, which knows what to do with a row that is there."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def _held(connection: Connection, id_: str, *, lock: bool = False) -> Job:
    query = sa.select(JOBS).where(JOBS.c.id == id_)
    if (row := connection.execute(query.with_for_update() if lock else query).one_or_none()) is None:
        raise JobNotFound(id_)
    return _read(row)


def _read(row: Any) -> Job:
    return replace(_JOB.validate_json(row.body), heartbeat_at=row.heartbeat_at)


def _write(connection: Connection, job: Job) -> Job:
    connection.execute(sa.update(JOBS).where(JOBS.c.id == job.id).values(_row(job)))
    return job


def _row(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant": job.tenant,
        "idem": job.idem or None,
        "state": str(job.state),
        "created_at": job.created_at,
        "heartbeat_at": job.heartbeat_at,
        "body": _JOB.dump_json(job).decode(),
    }
