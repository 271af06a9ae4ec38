"""Feedback in SQL: what was said, which of it counts, and what still waits for its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from monitoring.database import reading
from monitoring.records.codes import Page, code, unpacked
from monitoring.records.events import Feedback
from monitoring.records.feedback import Orphans, latest
from monitoring.records.periods import least_id
from monitoring.records.tables import (
    CHUNKS,
    CONVERSATION,
    FEEDBACK,
    IN_CONVERSATION,
    IN_ONE_MAX,
    INFERENCES,
    PENDING,
    feedback_from_row,
)

Conditions = Sequence[sa.ColumnElement[bool]]
_Column: TypeAlias = sa.Column[Any]
_Lookup: TypeAlias = Callable[[Sequence[str]], sa.ColumnElement[bool]]


def history(engines: Sequence[Engine], where: Conditions, *, after: str | None, limit: int) -> list[Feedback]:
    """All that was said, oldest first, the first `limit` after an id."""
    wanted = sa.select(FEEDBACK).where(*where)
    if after is not None:
        wanted = wanted.where(FEEDBACK.c.id > after)
    found: list[Feedback] = []
    for engine in engines:
        if len(found) < limit:
            with reading(engine).begin() as connection:
                rows = connection.execute(wanted.order_by(FEEDBACK.c.id).limit(limit - len(found)))
                found += map(feedback_from_row, rows)
    return found


def counting(
    engines: Sequence[Engine], everywhere: Sequence[Engine], where: Conditions, *, after: str | None, limit: int
) -> list[Feedback]:
    """The same without what a later word, wherever it is, has replaced."""
    found: list[Feedback] = []
    size = min(limit + 20, IN_ONE_MAX)
    while len(found) < limit:
        page = history(engines, where, after=after, limit=size)
        words = [word for some in _batches(sorted({each.target for each in page})) for word in _about(everywhere, some)]
        last = {each.id for each in latest(words)}
        found += [each for each in page if each.id in last]
        if len(page) < size:
            break
        after = page[-1].id
    return found[:limit]


def pending(engines: Sequence[Engine], tenant: str | None, limit: int) -> list[Feedback]:
    """What waits for its answer, oldest first."""
    found: list[Feedback] = []
    for engine in engines:
        for page in _waiting(engine):
            missing = _unseen(engines, [each for each in page if tenant in (None, each.tenant)])
            found += missing
            if len(found) >= limit:
                return found[:limit]
    return found


def expire(engines: Sequence[Engine], before: float) -> Orphans:
    """Cross off what has found its answer; drop what has none and was said before a unix time."""
    waiting = expired = 0
    bound = least_id(before)
    for engine in engines:
        for page in _waiting(engine):
            missing = _unseen(engines, page)
            gone = [each for each in missing if each.id < bound]
            waiting += len(missing) - len(gone)
            expired += len(gone)
            kept = {each.id for each in missing} - {each.id for each in gone}
            done = [each.id for each in page if each.id not in kept]
            with engine.begin() as connection:
                connection.execute(sa.delete(PENDING).where(PENDING.c.id.in_(done)))
                connection.execute(sa.delete(FEEDBACK).where(FEEDBACK.c.id.in_([each.id for each in gone])))
                _strike(connection, gone)
    return Orphans(waiting=waiting, expired=expired)


def _waiting(engine: Engine) -> Iterator[list[Feedback]]:
    """What is noted as pending, in pages."""
    wanted = sa.select(FEEDBACK).join(PENDING, PENDING.c.id == FEEDBACK.c.id).order_by(PENDING.c.id).limit(IN_ONE_MAX)
    after = ""
    while True:
        with reading(engine).begin() as connection:
            rows = connection.execute(wanted.where(PENDING.c.id > after) if after else wanted).all()
        if not rows:
            return
        page = [feedback_from_row(row) for row in rows]
        after = page[-1].id
        yield page


def _unseen(engines: Sequence[Engine], said: Sequence[Feedback]) -> list[Feedback]:
    """Those whose target is no answer and no conversation of their own tenant."""
    seen: set[tuple[str, str, str]] = set()
    ways: tuple[tuple[str, _Column, _Lookup], ...] = (
        ("completion", INFERENCES.c.completion_id, INFERENCES.c.completion_id.in_),
        ("conversation", INFERENCES.c.conversation, _in_conversations),
    )
    for kind, column, among in ways:
        for some in _batches(sorted({each.target for each in said if each.target_kind == kind})):
            wanted = sa.select(INFERENCES.c.tenant, column).where(among(some)).distinct()
            for engine in engines:
                with reading(engine).begin() as connection:
                    seen.update((tenant, kind, name) for tenant, name in connection.execute(wanted))
    return [each for each in said if (each.tenant, each.target_kind, each.target) not in seen]


def _in_conversations(names: Sequence[str]) -> sa.ColumnElement[bool]:
    """Said as the index says it, else it is not used."""
    beginnings = CONVERSATION.in_([name[:200] for name in names])
    return sa.and_(IN_CONVERSATION, beginnings, INFERENCES.c.conversation.in_(names))


def _about(engines: Sequence[Engine], targets: Sequence[str]) -> Iterator[Feedback]:
    wanted = sa.select(FEEDBACK).where(FEEDBACK.c.target.in_(targets))
    for engine in engines:
        with reading(engine).begin() as connection:
            rows = connection.execute(wanted).all()
        yield from map(feedback_from_row, rows)


def _strike(connection: Connection, gone: Sequence[Feedback]) -> None:
    """Take what is dropped out of its tenant's chunks too."""
    for tenant in {each.tenant for each in gone}:
        keys = np.array([code(each.id) for each in gone if each.tenant == tenant], np.int64)
        here = (CHUNKS.c.book == code(tenant), CHUNKS.c.page == int(Page.FEEDBACK))
        until = max(each.id for each in gone)
        for chunk_id, packed in connection.execute(
            sa.select(CHUNKS.c.id, CHUNKS.c.packed).where(*here, CHUNKS.c.id <= until)
        ).all():
            rows = unpacked(Page.FEEDBACK, [packed])
            kept = rows[~np.isin(rows["key"], keys)]
            if kept.size < rows.size:
                change = sa.update(CHUNKS).where(*here, CHUNKS.c.id == chunk_id)
                connection.execute(change.values(packed=kept.tobytes()))


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), IN_ONE_MAX):
        yield names[start : start + IN_ONE_MAX]
