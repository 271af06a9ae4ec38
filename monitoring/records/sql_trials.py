"""Experiments in SQL: pages of exposures for people, and the chunks of a whole experiment for the analysis."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from monitoring.database import reading
from monitoring.records.codes import Page, code, unpacked
from monitoring.records.events import Exposure
from monitoring.records.joins import Trial
from monitoring.records.tables import CHUNKS, EXPOSURES, TAGS, exposure_from_row


def exposures(engines: Iterable[Engine], experiment: str, *, after: str | None, limit: int) -> list[Exposure]:
    """The oldest `limit` exposures after an id."""
    wanted = sa.select(EXPOSURES).where(EXPOSURES.c.experiment == experiment)
    if after is not None:
        wanted = wanted.where(EXPOSURES.c.id > after)
    found: list[Exposure] = []
    for engine in engines:
        if len(found) < limit:
            with reading(engine).begin() as connection:
                rows = connection.execute(wanted.order_by(EXPOSURES.c.id).limit(limit - len(found)))
                found += map(exposure_from_row, rows)
    return found


def trial(engines: list[Engine], experiment: str) -> Trial:
    """Everything that an analysis of this experiment needs."""
    book = code(experiment)
    shown = unpacked(Page.EXPOSURES, _packed(engines, book, Page.EXPOSURES))
    since = float(shown["at"].min()) if shown.size else np.inf
    said = [
        part
        for tenant in np.unique(shown["tenant"]).tolist()
        for part in _packed(engines, tenant, Page.FEEDBACK, since=since)
    ]
    return Trial(
        exposures=shown,
        outcomes=unpacked(Page.OUTCOMES, _packed(engines, book, Page.OUTCOMES)),
        feedback=unpacked(Page.FEEDBACK, said),
        tags=_tags(engines, book),
    )


def _tags(engines: Iterable[Engine], book: int) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for engine in engines:
        with reading(engine).begin() as connection:
            rows = connection.execute(sa.select(TAGS.c.code, TAGS.c.tags).where(TAGS.c.book == book)).all()
        found |= {row.code: orjson.loads(row.tags) for row in rows}
    return found


def _packed(engines: Iterable[Engine], book: int, page: Page, *, since: float | None = None) -> list[bytes]:
    wanted = sa.select(CHUNKS.c.packed).where(CHUNKS.c.book == book, CHUNKS.c.page == int(page))
    if since is not None:
        wanted = wanted.where(CHUNKS.c.until >= since)
    found: list[bytes] = []
    for engine in engines:
        with reading(engine).begin() as connection:
            found += connection.scalars(wanted.order_by(CHUNKS.c.id))
    return found
