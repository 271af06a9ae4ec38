"""`ReviewStore` on SQLite and PostgreSQL. Changes queue behind one another: people are slow, so that costs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from monitoring.database import answering, migrate, reading
from monitoring.review.errors import AlreadyAnswered, ClaimLost, ReviewUnavailable, TaskNotFound
from monitoring.review.store import Coin, fresh
from monitoring.review.values import Answer, By, Claim, Kind, Reason, State, Task

_META = sa.MetaData()
#: Any number that no other use of advisory locks in the same database shares.
_LOCK = 0x6772_6166_7276
_IN_ONE_MAX = 500

TASKS = sa.Table(
    "review_tasks",
    _META,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("tenant", sa.String(512), nullable=False),
    sa.Column("subject", sa.String(64), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("records", sa.Text, nullable=False),
    sa.Column("completions", sa.Text, nullable=False),
    sa.Column("picked", sa.String(16), nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("overlap", sa.Integer, nullable=False),
    sa.Column("answered", sa.Integer, nullable=False),
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("picked_at", sa.Double, nullable=False),
    sa.Column("picked_by", sa.Text, nullable=False),
    sa.Index("review_tasks_open", "tenant", "done", "id"),
)

#: Who has a task, or has had it. The key is what gives nobody the same task twice.
TURNS = sa.Table(
    "review_turns",
    _META,
    sa.Column("task", sa.String(36), sa.ForeignKey(TASKS.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("reviewer", sa.String(512), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),  # claimed, answered, skipped
    sa.Column("at", sa.Double, nullable=False),  # of a claim: when it ends
    sa.Column("flipped", sa.Boolean, nullable=False),
    sa.Column("thumbs", sa.Integer),
    sa.Column("scalars", sa.Text, nullable=False, server_default="{}"),
    sa.Column("choice", sa.String(8)),
)

STEPS = (_META.create_all,)


class SqlReviews:
    """Migrates its room when it is made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with answering("reviews'", ReviewUnavailable):
            migrate(engine, "review", STEPS)

    def add(self, tasks: Sequence[Task], *, most: int | None = None, keep: bool = True) -> tuple[Task, ...]:
        with self._changing() as connection:
            known: set[str] = set()
            for start in range(0, len(tasks), _IN_ONE_MAX):
                some = [task.subject for task in tasks[start : start + _IN_ONE_MAX]]
                known.update(connection.scalars(sa.select(TASKS.c.subject).where(TASKS.c.subject.in_(some))))
            added = fresh(tasks, known, most)
            if added and keep:
                connection.execute(sa.insert(TASKS), [_row(task) for task in added])
        return added

    def get(self, tenant: str, task: str) -> Task:
        with self._reading() as connection:
            return _found(connection, tenant, task)

    def list(
        self, tenant: str, *, state: State = "open", kind: Kind | None = None, after: str = "", limit: int = 100
    ) -> tuple[Task, ...]:
        wanted = sa.select(TASKS).where(TASKS.c.tenant == tenant, TASKS.c.id > _spelled(after))
        if state != "all":
            wanted = wanted.where(TASKS.c.done == (state == "done"))
        if kind is not None:
            wanted = wanted.where(TASKS.c.kind == str(kind))
        with self._reading() as connection:
            return tuple(map(_task, connection.execute(wanted.order_by(TASKS.c.id).limit(limit))))

    def claim(
        self, tenant: str, reviewer: str, *, kind: Kind | None, now: float, until: float, coin: Coin
    ) -> Claim | None:
        mine = TURNS.alias()
        had = (mine.c.state != "claimed") | (mine.c.at > now)
        wanted = sa.select(TASKS).where(
            TASKS.c.tenant == tenant,
            TASKS.c.done.is_(False),
            _free(now),
            ~sa.exists().where(mine.c.task == TASKS.c.id, mine.c.reviewer == reviewer, had),
        )
        if kind is not None:
            wanted = wanted.where(TASKS.c.kind == str(kind))
        with self._changing() as connection:
            row = connection.execute(wanted.order_by(TASKS.c.id).limit(1)).first()
            if row is None:
                return None
            claim = Claim(task=_task(row), reviewer=reviewer, until=until, flipped=coin(row.id, reviewer))
            _put(connection, row.id, reviewer, state="claimed", at=until, flipped=claim.flipped)
            return claim

    def held(self, tenant: str, task: str, reviewer: str, *, now: float, asked: bool = True) -> Claim:
        with self._reading() as connection:
            return _held(connection, tenant, task, reviewer, now, asked)

    def answer(self, tenant: str, answer: Answer, *, asked: bool = True) -> Task:
        with self._changing() as connection:
            task = _held(connection, tenant, answer.task, answer.reviewer, answer.at, asked).task
            _put(
                connection,
                task.id,
                answer.reviewer,
                state="skipped" if answer.skipped else "answered",
                at=answer.at,
                flipped=answer.flipped,
                thumbs=answer.thumbs,
                scalars=json.dumps(dict(answer.scalars)),
                choice=answer.choice,
            )
            if not answer.skipped:
                count = TASKS.c.answered + 1
                more = sa.update(TASKS).where(TASKS.c.id == task.id)
                connection.execute(more.values(answered=count, done=count >= TASKS.c.overlap))
            return _found(connection, tenant, task.id)

    def answers(self, tenant: str, *, tasks: Sequence[str] | None = None) -> tuple[Answer, ...]:
        wanted = sa.select(TURNS).join(TASKS, TASKS.c.id == TURNS.c.task)
        wanted = wanted.where(TASKS.c.tenant == tenant, TURNS.c.state == "answered")
        if tasks is not None:
            wanted = wanted.where(TURNS.c.task.in_(list(tasks)))
        with self._reading() as connection:
            rows = connection.execute(wanted.order_by(TURNS.c.task, TURNS.c.at, TURNS.c.reviewer))
            return tuple(map(_answer, rows))

    def drop(self, tenant: str, task: str) -> None:
        with self._changing() as connection:
            connection.execute(sa.delete(TASKS).where(TASKS.c.id == _spelled(task), TASKS.c.tenant == tenant))

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with answering("reviews'", ReviewUnavailable), self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with answering("reviews'", ReviewUnavailable), reading(self._engine).begin() as connection:
            yield connection


def _spelled(id_: str) -> str:
    """An id as a database takes it: PostgreSQL takes no NUL, the driver no surrogates."""
    return id_ if id_.isascii() and id_.isprintable() else ""


def _free(now: float) -> sa.ColumnElement[bool]:
    """Whether a task has a seat that nobody sits on."""
    running = sa.select(sa.func.count()).select_from(TURNS)
    running = running.where(TURNS.c.task == TASKS.c.id, TURNS.c.state == "claimed", TURNS.c.at > now)
    return TASKS.c.answered + running.correlate(TASKS).scalar_subquery() < TASKS.c.overlap


def _found(connection: Connection, tenant: str, task: str) -> Task:
    wanted = sa.select(TASKS).where(TASKS.c.id == _spelled(task), TASKS.c.tenant == tenant)
    row = connection.execute(wanted).first()
    if row is None:
        raise TaskNotFound(task)
    return _task(row)


def _held(connection: Connection, tenant: str, task: str, reviewer: str, now: float, asked: bool) -> Claim:
    found = _found(connection, tenant, task)
    turn = connection.execute(sa.select(TURNS).where(TURNS.c.task == task, TURNS.c.reviewer == reviewer)).first()
    if turn is not None and turn.state != "claimed":
        raise AlreadyAnswered(task, reviewer)
    if asked and (turn is None or turn.at <= now):
        free = connection.scalar(sa.select(_free(now)).select_from(TASKS).where(TASKS.c.id == task))
        if turn is None or not free:
            raise ClaimLost(task, reviewer)
    if turn is None:
        return Claim(task=found, reviewer=reviewer, until=now)
    return Claim(task=found, reviewer=reviewer, until=turn.at, flipped=turn.flipped)


def _put(connection: Connection, task: str, reviewer: str, **values: Any) -> None:
    connection.execute(sa.delete(TURNS).where(TURNS.c.task == task, TURNS.c.reviewer == reviewer))
    connection.execute(sa.insert(TURNS).values(task=task, reviewer=reviewer, **values))


def _row(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "tenant": task.tenant,
        "subject": task.subject,
        "kind": str(task.kind),
        "records": json.dumps(task.records),
        "completions": json.dumps(task.completions),
        "picked": str(task.reason.by),
        "why": task.reason.why,
        "score": task.reason.score,
        "overlap": task.overlap,
        "answered": task.answered,
        "done": task.done,
        "picked_at": task.picked_at,
        "picked_by": task.picked_by,
    }


def _task(row: sa.Row[Any]) -> Task:
    return Task(
        id=row.id,
        tenant=row.tenant,
        kind=Kind(row.kind),
        records=tuple(json.loads(row.records)),
        completions=tuple(json.loads(row.completions)),
        reason=Reason(by=By(row.picked), why=row.why, score=row.score),
        overlap=row.overlap,
        answered=row.answered,
        picked_at=row.picked_at,
        picked_by=row.picked_by,
    )


def _answer(row: sa.Row[Any]) -> Answer:
    return Answer(
        task=row.task,
        reviewer=row.reviewer,
        at=row.at,
        thumbs=row.thumbs,
        scalars=json.loads(row.scalars),
        choice=row.choice,
        flipped=row.flipped,
    )
