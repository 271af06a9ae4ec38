"""Stored answers in SQL: the record and, beside it, what its caller changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine

from monitoring.database import reading
from monitoring.records.errors import NotFound
from monitoring.records.events import Inference
from monitoring.records.stored import Change, changed, clean
from monitoring.records.tables import CHANGES, INFERENCES, IS_STORED, from_row

_WITH_CHANGES = sa.select(*INFERENCES.c, CHANGES.c.metadata).select_from(
    INFERENCES.outerjoin(CHANGES, CHANGES.c.id == INFERENCES.c.id)
)
_STANDS = sa.func.coalesce(CHANGES.c.removed, sa.false()) == sa.false()


def listed(
    engines: Sequence[Engine],
    tenant: str,
    *,
    model: str | None,
    metadata: Mapping[str, str] | None,
    after: str | None,
    limit: int,
    newest_first: bool,
) -> list[Inference]:
    """The first `limit` that match, from each month in turn."""
    wanted = _WITH_CHANGES.where(*_of(tenant), _STANDS)
    if model is not None:
        wanted = wanted.where(INFERENCES.c.model == clean(model))
    if after is not None:
        at = _id_of(engines, after, tenant)
        wanted = wanted.where(INFERENCES.c.id < at if newest_first else INFERENCES.c.id > at)
    wanted = wanted.order_by(INFERENCES.c.id.desc() if newest_first else INFERENCES.c.id)
    found: list[Inference] = []
    for engine in reversed(engines) if newest_first else engines:
        if len(found) < limit:
            labelled = [_labelled(engine, clean(key), clean(value)) for key, value in (metadata or {}).items()]
            with reading(engine).begin() as connection:
                rows = connection.execute(wanted.where(*labelled).limit(limit - len(found))).all()
            found += map(_event, rows)
    return found


def one(engines: Sequence[Engine], completion_id: str, tenant: str) -> Inference:
    """The newest of that name."""
    return _found(engines, completion_id, tenant)[1]


def change(
    engines: Sequence[Engine],
    completion_id: str,
    tenant: str,
    *,
    metadata: Mapping[str, str] | None = None,
    removed: bool = False,
) -> Inference:
    """Note what its caller changed, where it stands still; a removed one stays removed."""
    engine, event = _found(engines, completion_id, tenant)
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    values: dict[str, Any] = {"removed": True} if removed else {}
    cleaned = None if metadata is None else {clean(key): clean(text) for key, text in metadata.items()}
    if cleaned is not None:
        values["metadata"] = orjson.dumps(cleaned).decode()
    row = dialect.insert(CHANGES).values({"id": event.id, "metadata": None, "removed": removed} | values)
    with engine.begin() as connection:
        connection.execute(row.on_conflict_do_update(index_elements=[CHANGES.c.id], set_=values))
    return changed(event, Change(metadata=cleaned))


def _found(engines: Sequence[Engine], completion_id: str, tenant: str) -> tuple[Engine, Inference]:
    wanted = _WITH_CHANGES.where(INFERENCES.c.completion_id == clean(completion_id), *_of(tenant), _STANDS)
    for engine in reversed(engines):
        with reading(engine).begin() as connection:
            row = connection.execute(wanted.order_by(INFERENCES.c.id.desc()).limit(1)).first()
        if row is not None:
            return engine, _event(row)
    raise NotFound(completion_id)


def _id_of(engines: Sequence[Engine], completion_id: str, tenant: str) -> str:
    wanted = sa.select(INFERENCES.c.id).where(INFERENCES.c.completion_id == clean(completion_id), *_of(tenant))
    for engine in reversed(engines):
        with reading(engine).begin() as connection:
            found = connection.execute(wanted.order_by(INFERENCES.c.id.desc()).limit(1)).scalar()
        if found is not None:
            return str(found)
    raise NotFound(completion_id)


def _of(tenant: str) -> tuple[sa.ColumnElement[bool] | sa.TextClause, ...]:
    """Said as the index of stored answers says it, else it is not used."""
    return (
        INFERENCES.c.tenant == tenant,
        IS_STORED,
        INFERENCES.c.endpoint == "chat",
        INFERENCES.c.completion_id != "",
    )


def _labelled(engine: Engine, key: str, value: str) -> sa.ColumnElement[bool]:
    """Whether the metadata that an answer has now holds this pair. A key may hold any character, a path may not."""
    pairs = sa.func.coalesce(CHANGES.c.metadata, INFERENCES.c.metadata)
    if engine.dialect.name == "postgresql":
        return sa.func.json_extract_path_text(sa.cast(pairs, postgresql.JSON), key) == value
    pair = sa.func.json_each(pairs).table_valued("key", "value", name="pair")
    return sa.exists(sa.select(1).select_from(pair).where(pair.c.key == key, pair.c.value == value))


def _event(row: Sequence[Any]) -> Inference:
    event, metadata = from_row(row[:-1]), row[-1]
    return event if metadata is None else changed(event, Change(metadata=orjson.loads(metadata)))
