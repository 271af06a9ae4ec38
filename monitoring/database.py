"""How every floor opens SQL: SQLite in WAL mode or PostgreSQL by URL, numbered migrations, and the revision row.

All SQL in this project is synchronous and runs in threads or in processes of its own; the request path does none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url

_META = sa.MetaData()

#: Which numbered step each room has reached.
MIGRATIONS = sa.Table(
    "graftline_migrations",
    _META,
    sa.Column("room", sa.String(64), primary_key=True),
    sa.Column("step", sa.Integer, nullable=False),
)

#: One row. Gateways swap their routing snapshot when it moves.
REVISION = sa.Table(
    "graftline_revision",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

Step = Callable[[Connection], None]


def connect(url: str | URL, *, busy_timeout_s: float = 5.0) -> Engine:
    """Open an engine for `sqlite:///path` or `postgresql+psycopg://…`.

    SQLite gets WAL, foreign keys and `BEGIN IMMEDIATE`, so that two writers queue instead of failing at commit.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    engine = sa.create_engine(parsed, connect_args={"timeout": busy_timeout_s, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None  # transactions are begun below, not by the driver
        dbapi.execute("PRAGMA journal_mode=WAL")
        dbapi.execute("PRAGMA synchronous=NORMAL")
        dbapi.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def reading(engine: Engine) -> Engine:
    """The same engine for transactions that only read: they never wait for a writer."""
    return engine.execution_options(read_only=True)


@contextmanager
def answering(whose: str, error: type[Exception]) -> Iterator[None]:
    """A database that does not answer, told as a room's own `error`. `whose` says what it holds, as "jobs'"."""
    try:
        yield
    except sa.exc.SQLAlchemyError as problem:
        what = str(problem).splitlines()[0]
        raise error(f"The {whose} database did not answer: {what}. Nothing was changed.") from problem


def migrate(engine: Engine, room: str, steps: Sequence[Step]) -> int:
    """Run the steps of `room` that have not run yet, each in its own transaction; returns how many ran.

    Steps are numbered by position, forward only. Two processes starting together are safe: the row is locked.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # CREATE TABLE IF NOT EXISTS races with itself there
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7230411)"))
        _META.create_all(connection)
        if connection.execute(sa.select(REVISION.c.id)).first() is None:
            connection.execute(sa.insert(REVISION).values(id=1, revision=1))
        if connection.execute(sa.select(MIGRATIONS.c.step).where(MIGRATIONS.c.room == room)).first() is None:
            connection.execute(sa.insert(MIGRATIONS).values(room=room, step=0))
    ran = 0
    for number, step in enumerate(steps, start=1):
        with engine.begin() as connection:
            row = sa.select(MIGRATIONS.c.step).where(MIGRATIONS.c.room == room).with_for_update()
            if connection.execute(row).scalar_one() >= number:
                continue
            step(connection)
            connection.execute(sa.update(MIGRATIONS).where(MIGRATIONS.c.room == room).values(step=number))
            ran += 1
    return ran


def bump(connection: Connection) -> int:
    """Move the revision row, in the transaction of the change it announces; returns the new revision."""
    connection.execute(sa.update(REVISION).where(REVISION.c.id == 1).values(revision=REVISION.c.revision + 1))
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("NOTIFY graftline_revision"))
    return revision(connection)


def revision(connection: Connection) -> int:
    """The revision that this transaction sees."""
    return int(connection.execute(sa.select(REVISION.c.revision).where(REVISION.c.id == 1)).scalar_one())
