"""Records in SQL: PostgreSQL by URL, or a folder of SQLite files, one a month."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from monitoring.database import reading
from monitoring.records import sql_feedback, sql_stored, sql_trials
from monitoring.records.errors import BadRecord, NotFound, StoreAway
from monitoring.records.events import Event, Exposure, Feedback, Inference
from monitoring.records.feedback import Orphans
from monitoring.records.joins import Trial
from monitoring.records.periods import bounds, least_id, period_at, period_of
from monitoring.records.shelves import Months, Server, Shelves
from monitoring.records.tables import FEEDBACK, INFERENCES, OFFSETS, TAINTS, advance, from_row, insert
from monitoring.records.taints import Taint, marked

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class SqlRecords:
    """`Records` on `postgresql+psycopg://…`, or in a folder. Opens nothing until it is used; safe in several threads.

    Every method raises StoreAway when the database cannot be reached or refuses to write.
    """

    def __init__(self, url_or_folder: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self._shelves: Shelves
        if isinstance(url_or_folder, Path) or "://" not in url_or_folder:
            self._shelves = Months(Path(url_or_folder))
        else:
            url = make_url(url_or_folder)
            if url.get_backend_name() != "postgresql":
                raise ValueError(
                    f"Records live in PostgreSQL by URL, or in a folder of SQLite files; found {url.drivername}://. "
                    "Give the folder's path instead of a URL."
                )
            self._shelves = Server(url)
        self._clock = clock

    def ingest(self, file: str, offset: int, events: Sequence[Event]) -> None:
        with _translated():
            *older, newest = self._shelves.writing(events, self._clock())
            for engine, some in older:
                with engine.begin() as connection:
                    insert(connection, some)
            engine, some = newest
            with engine.begin() as connection:
                self._shelves.prepare(connection, some)
                insert(connection, some)
                advance(connection, file, offset)

    def offset(self, file: str) -> int:
        wanted = sa.select(sa.func.max(OFFSETS.c.done)).where(OFFSETS.c.file == file)
        return max((row[0] or 0 for row in self._rows(wanted)), default=0)

    def forget(self, file: str) -> None:
        with _translated():
            for engine in self._shelves.reading():
                with engine.begin() as connection:
                    connection.execute(sa.delete(OFFSETS).where(OFFSETS.c.file == file))

    def get(self, record_id: str) -> Inference:
        if not _UUID.fullmatch(record_id):
            raise NotFound(record_id)
        period = period_of(record_id)
        for row in self._rows(sa.select(INFERENCES).where(INFERENCES.c.id == record_id), period, period):
            return marked(from_row(row), self.taints())
        raise NotFound(record_id)

    def by_completion(self, completion_id: str, tenant: str) -> Inference:
        wanted = sa.select(INFERENCES).where(INFERENCES.c.completion_id == completion_id, INFERENCES.c.tenant == tenant)
        for row in self._rows(wanted.order_by(INFERENCES.c.id.desc()).limit(1), newest_first=True):
            return marked(from_row(row), self.taints())
        raise NotFound(completion_id)

    def query(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Inference]:
        wanted = sa.select(INFERENCES).where(*_conditions(tenant, digest, since, until)).order_by(INFERENCES.c.id)
        first, last = _span(since, until)
        if after is not None:
            if not _UUID.fullmatch(after):
                raise NotFound(after)
            wanted = wanted.where(INFERENCES.c.id > after)
            first = max(first, period_of(after))
        found: list[Inference] = []
        for row in self._rows(wanted.limit(limit), first, last):
            if len(found) >= limit:
                break
            found.append(from_row(row))
        taints = self.taints() if found else ()
        return [marked(event, taints) for event in found]

    def count(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> int:
        wanted = sa.select(sa.func.count()).select_from(INFERENCES).where(*_conditions(tenant, digest, since, until))
        return sum(row[0] for row in self._rows(wanted, *_span(since, until)))

    def drop_before(self, before: float) -> list[str]:
        with _translated():
            gone = self._shelves.drop_before(before)
            if gone and (engine := self._shelves.taints()) is not None:
                with engine.begin() as connection:
                    connection.execute(sa.delete(TAINTS).where(TAINTS.c.until < bounds(gone[-1])[1]))
            return gone

    def taint(self, replica: str, since: float, until: float, why: str) -> None:
        row = {"replica": replica, "since": since, "until": until, "why": why}
        with _translated():
            engine = self._shelves.taints(make=True)
            assert engine is not None
            with engine.begin() as connection:
                known = [TAINTS.c[name] == value for name, value in row.items()]
                if connection.execute(sa.select(TAINTS.c.replica).where(*known)).first() is None:
                    connection.execute(sa.insert(TAINTS).values(row))

    def taints(self) -> list[Taint]:
        wanted = sa.select(TAINTS).order_by(TAINTS.c.since, TAINTS.c.replica, TAINTS.c.until, TAINTS.c.why)
        with _translated():
            engine = self._shelves.taints()
            if engine is None:
                return []
            with reading(engine).begin() as connection:
                rows = connection.execute(wanted).all()
        return [Taint(replica=row.replica, since=row.since, until=row.until, why=row.why) for row in rows]

    def exposures(self, experiment: str, *, after: str | None = None, limit: int = 100) -> list[Exposure]:
        with _translated():
            return sql_trials.exposures(self._shelves.reading(), experiment, after=after, limit=limit)

    def trial(self, experiment: str) -> Trial:
        with _translated():
            return sql_trials.trial(self._shelves.reading(), experiment)

    def feedback(
        self,
        *,
        tenant: str | None = None,
        target: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
        history: bool = False,
    ) -> list[Feedback]:
        where = _within(FEEDBACK, since, until)
        for column, wanted in ((FEEDBACK.c.tenant, tenant), (FEEDBACK.c.target, target)):
            if wanted is not None:
                where.append(column == wanted)
        with _translated():
            engines = self._shelves.reading(*_span(since, until))
            if history:
                return sql_feedback.history(engines, where, after=after, limit=limit)
            return sql_feedback.counting(engines, self._shelves.reading(), where, after=after, limit=limit)

    def pending(self, *, tenant: str | None = None, limit: int = 100) -> list[Feedback]:
        with _translated():
            return sql_feedback.pending(self._shelves.reading(), tenant, limit)

    def expire(self, now: float, keep_s: float) -> Orphans:
        with _translated():
            return sql_feedback.expire(self._shelves.reading(), now - keep_s)

    def stored(
        self,
        tenant: str,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = False,
    ) -> list[Inference]:
        with _translated():
            found = sql_stored.listed(
                self._shelves.reading(),
                tenant,
                model=model,
                metadata=metadata,
                after=after,
                limit=limit,
                newest_first=newest_first,
            )
        taints = self.taints() if found else ()
        return [marked(event, taints) for event in found]

    def stored_one(self, completion_id: str, tenant: str) -> Inference:
        with _translated():
            return marked(sql_stored.one(self._shelves.reading(), completion_id, tenant), self.taints())

    def relabel(self, completion_id: str, tenant: str, metadata: Mapping[str, str]) -> Inference:
        with _translated():
            found = sql_stored.change(self._shelves.reading(), completion_id, tenant, metadata=metadata)
        return marked(found, self.taints())

    def unstore(self, completion_id: str, tenant: str) -> None:
        with _translated():
            sql_stored.change(self._shelves.reading(), completion_id, tenant, removed=True)

    def close(self) -> None:
        """Close every connection. A later call opens them again."""
        self._shelves.close()

    def _rows(
        self, wanted: sa.Select[Any], first: str = "", last: str = "9999-99", *, newest_first: bool = False
    ) -> Iterator[sa.Row[Any]]:
        """The rows of one statement from each database of these months, in their order; stops when the caller does."""
        with _translated():
            engines = self._shelves.reading(first, last)
            for engine in reversed(engines) if newest_first else engines:
                with reading(engine).begin() as connection:
                    rows = connection.execute(wanted).all()
                yield from rows


def _conditions(
    tenant: str | None, digest: str | None, since: float | None, until: float | None
) -> list[sa.ColumnElement[bool]]:
    conditions = _within(INFERENCES, since, until)
    if tenant is not None:
        conditions.append(INFERENCES.c.tenant == tenant)
    if digest is not None:
        conditions.append(INFERENCES.c.digest == digest)
    return conditions


def _within(table: sa.Table, since: float | None, until: float | None) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(table.c.id >= least_id(since))
    if until is not None:
        conditions.append(table.c.id < least_id(until))
    return conditions


def _span(since: float | None, until: float | None) -> tuple[str, str]:
    return "" if since is None else period_at(since), "9999-99" if until is None else period_at(until)


@contextmanager
def _translated() -> Iterator[None]:
    """Foreign errors become ours. Their text may quote a row, which is people's words, so only its kind is told."""
    try:
        yield
    except (sa.exc.DataError, sa.exc.IntegrityError, OverflowError, UnicodeError) as problem:
        raise BadRecord(f"The database cannot hold one of these records ({type(problem).__name__}).") from problem
    except (sa.exc.SQLAlchemyError, OSError) as problem:
        reason = getattr(problem, "orig", None) or problem
        raise StoreAway(f"The records database cannot be used now: {reason}. Records wait in the spool.") from problem
