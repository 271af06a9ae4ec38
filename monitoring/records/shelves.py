"""Where the rows stand, a month to a shelf: partitions of one PostgreSQL table, or one SQLite file each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from monitoring.database import connect, migrate
from monitoring.records.events import Event
from monitoring.records.periods import bounds, expired, least_id, period_at, period_of
from monitoring.records.tables import CHANGES, OFFSETS, PARTITIONED, PENDING, STEPS, TAINT_STEPS, advance

_CONNECT_TIMEOUT_S = 5
#: Any number that no other use of advisory locks in the same database shares.
_PARTITION_LOCK = 0x6772_6166_7473


class Shelves(Protocol):
    """Where to write and read. Everything may raise what SQLAlchemy and the file system raise."""

    def writing(self, events: Sequence[Event], now: float) -> list[tuple[Engine, Sequence[Event]]]:
        """The events by the database they go to, oldest first; with no events, one database to note an offset in."""

    def prepare(self, connection: Connection, events: Sequence[Event]) -> None:
        """Make room for the events' months, in the transaction that inserts them."""

    def reading(self, first: str = "", last: str = "9999-99") -> list[Engine]:
        """The databases that hold records of these months, oldest first."""

    def drop_before(self, before: float) -> list[str]:
        """Drop the months that lie wholly before; returns them."""

    def taints(self, *, make: bool = False) -> Engine | None:
        """The database of the marks; None while there is none, unless one is to be made."""

    def close(self) -> None:
        """Close every connection."""


class Server:
    """One PostgreSQL database, its tables partitioned by month."""

    def __init__(self, url: URL) -> None:
        patient = url.update_query_dict({"connect_timeout": str(_CONNECT_TIMEOUT_S)} | dict(url.query))
        self._engine = _private(connect(patient))
        self._ready = False

    def writing(self, events: Sequence[Event], now: float) -> list[tuple[Engine, Sequence[Event]]]:
        return [(self._opened(), events)]

    def prepare(self, connection: Connection, events: Sequence[Event]) -> None:
        for period in sorted({period_of(event.id) for event in events}):
            month = period.replace("-", "_")
            last = f"{PARTITIONED[-1].name}_{month}"
            if connection.scalar(sa.select(sa.func.to_regclass(last))) is not None:
                continue
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PARTITION_LOCK)))
            first, end = (least_id(edge) for edge in bounds(period))
            for table in PARTITIONED:
                connection.exec_driver_sql(
                    f"CREATE TABLE IF NOT EXISTS {table.name}_{month} PARTITION OF {table.name} "
                    f"FOR VALUES FROM ('{first}') TO ('{end}')"
                )

    def reading(self, first: str = "", last: str = "9999-99") -> list[Engine]:
        return [self._opened()]

    def drop_before(self, before: float) -> list[str]:
        with self._opened().begin() as connection:
            names = connection.scalars(
                sa.text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'inferences'::regclass")
            )
            gone = expired((name[-7:].replace("_", "-") for name in names), before)
            for period in gone:
                for table in PARTITIONED:
                    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table.name}_{period.replace('-', '_')}")
            if gone:
                for table in (PENDING, CHANGES):
                    connection.execute(sa.delete(table).where(table.c.id < least_id(bounds(gone[-1])[1])))
        return gone

    def taints(self, *, make: bool = False) -> Engine | None:
        return self._opened()

    def close(self) -> None:
        self._engine.dispose()

    def _opened(self) -> Engine:
        """Tables are made at first use, so that a process may start while the database is away."""
        if not self._ready:
            migrate(self._engine, "records", STEPS)
            migrate(self._engine, "taints", TAINT_STEPS)
            self._ready = True
        return self._engine


class Months:
    """A folder with one SQLite file a month, `records-2026-11.db`.

    Rows and the offset that covers them share a file, unless a batch spans a month's end: then the offset goes with the
    newest rows, last, so that a crash in between repeats rows and loses none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, Engine] = {}
        self._taints: Engine | None = None
        self._turn = threading.Lock()

    def writing(self, events: Sequence[Event], now: float) -> list[tuple[Engine, Sequence[Event]]]:
        if not events:
            period = next(reversed(self._periods()), period_at(now))
            return [(self._open(period), ())]
        by_period = groupby(sorted(events, key=lambda e: e.id), key=lambda e: period_of(e.id))
        return [(self._open(period), list(some)) for period, some in by_period]

    def prepare(self, connection: Connection, events: Sequence[Event]) -> None:
        """Nothing: the file is the month."""

    def reading(self, first: str = "", last: str = "9999-99") -> list[Engine]:
        return [self._open(period) for period in self._periods() if first <= period <= last]

    def drop_before(self, before: float) -> list[str]:
        gone = expired(self._periods(), before)
        for period in gone:
            self._keep_offsets(self._open(period), period_at(before))
            with self._turn:
                self._engines.pop(period).dispose()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path(period)}{suffix}").unlink(missing_ok=True)
        return gone

    def taints(self, *, make: bool = False) -> Engine | None:
        path = self._folder / "taints.db"
        with self._turn:
            if self._taints is None and (make or path.exists()):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                engine = _private(connect(URL.create("sqlite", database=str(path))))
                sa.event.listen(engine, "connect", _durable)
                migrate(engine, "taints", TAINT_STEPS)
                self._taints = engine
            return self._taints

    def close(self) -> None:
        with self._turn:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()
            if self._taints is not None:
                self._taints.dispose()
                self._taints = None

    def _keep_offsets(self, engine: Engine, period: str) -> None:
        """A spool file outlives its month when its writer does: without its offset it would be stored again."""
        with engine.connect() as connection:
            offsets = {row.file: row.done for row in connection.execute(sa.select(OFFSETS))}
        if offsets:
            with self._open(period).begin() as connection:
                for file, done in offsets.items():
                    advance(connection, file, done)

    def _periods(self) -> list[str]:
        return sorted(path.stem.removeprefix("records-") for path in self._folder.glob("records-????-??.db"))

    def _path(self, period: str) -> Path:
        return self._folder / f"records-{period}.db"

    def _open(self, period: str) -> Engine:
        with self._turn:
            if period not in self._engines:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                engine = _private(connect(URL.create("sqlite", database=str(self._path(period)))))
                sa.event.listen(engine, "connect", _durable)
                migrate(engine, "records", STEPS)
                self._engines[period] = engine
            return self._engines[period]


def _durable(dbapi: Any, _record: Any) -> None:
    """A spool file is removed once its rows are committed, so a commit must outlive a power cut."""
    dbapi.execute("PRAGMA synchronous=FULL")


def _private(engine: Engine) -> Engine:
    """Errors of this engine never print a row's values: they are people's words."""
    engine.hide_parameters = True
    return engine
