"""The tables of this room, and how an event becomes a row and comes back. The same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from monitoring.database import Step
from monitoring.records.codes import chunks, code, tags_code
from monitoring.records.events import Event, Exposure, Feedback, Inference

_META = sa.MetaData()
_ID = sa.String(36).with_variant(postgresql.UUID(as_uuid=False), "postgresql")
_SQL_TYPES: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "float": sa.Double,
    "_Ms": sa.Double,
    "_Chance": sa.Double,
    "_Count": sa.BigInteger,
    "_Bucket": sa.Integer,
    "bool": sa.Boolean,
}


def _columns(event: type[Event]) -> list[sa.Column[Any]]:
    """A column for each field, in the same order; what is not a number or a truth is text (metadata: JSON)."""
    columns: list[sa.Column[Any]] = [sa.Column("id", _ID, primary_key=True)]
    for each in fields(event)[1:]:
        if each.name == "tainted":
            continue  # worked out when it is read
        kind, _, optional = str(each.type).partition(" | ")
        kind = "float" if each.name in ("started_at", "at") else kind
        columns.append(sa.Column(each.name, _SQL_TYPES.get(kind, sa.Text)(), nullable=bool(optional)))
    return columns


#: On PostgreSQL a table of monthly partitions; on SQLite one such table in each monthly file.
INFERENCES = sa.Table(
    "inferences",
    _META,
    *_columns(Inference),
    sa.Index("inferences_completion", "completion_id"),
    sa.Index("inferences_tenant", "tenant", "id"),
    sa.Index("inferences_digest", "digest", "id"),
    postgresql_partition_by="RANGE (id)",
)

#: How far each spool file is stored.
OFFSETS = sa.Table(
    "spool_offsets",
    _META,
    sa.Column("file", sa.Text, primary_key=True),
    sa.Column("done", sa.BigInteger, nullable=False),
)

#: What the poison of a replica may have touched. On SQLite in a file of its own beside the months.
_MARKS = sa.MetaData()
TAINTS = sa.Table(
    "taints",
    _MARKS,
    sa.Column("replica", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)

#: An index entry must be short, a conversation's name need not be; and most answers are in none.
CONVERSATION = sa.literal_column("substr(conversation, 1, 200)", sa.Text)
IN_CONVERSATION = sa.text("conversation <> ''")
_BY_CONVERSATION = sa.Index(
    "inferences_conversation",
    CONVERSATION,
    sqlite_where=IN_CONVERSATION,
    postgresql_where=IN_CONVERSATION,
    _table=INFERENCES,
)

_LOOP = sa.MetaData()
EXPOSURES = sa.Table(
    "exposures",
    _LOOP,
    *_columns(Exposure),
    sa.Index("exposures_experiment", "experiment", "id"),
    postgresql_partition_by="RANGE (id)",
)
FEEDBACK = sa.Table(
    "feedback",
    _LOOP,
    *_columns(Feedback),
    sa.Index("feedback_target", "target", "tenant", "id"),
    sa.Index("feedback_tenant", "tenant", "id"),
    postgresql_partition_by="RANGE (id)",
)

#: What analyses read: see `codes`.
CHUNKS = sa.Table(
    "chunks",
    _LOOP,
    sa.Column("book", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("page", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("id", _ID, primary_key=True),
    sa.Column("until", sa.Double, nullable=False),
    sa.Column("packed", sa.LargeBinary, nullable=False),
    postgresql_partition_by="RANGE (id)",
)

#: Which tags a code in a chunk of exposures stands for. There are as many as combinations of values: few.
TAGS = sa.Table(
    "exposure_tags",
    _LOOP,
    sa.Column("book", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("code", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("tags", sa.Text, nullable=False),
)

#: Feedback whose target has not been seen to be its tenant's, so far.
PENDING = sa.Table("pending_feedback", _LOOP, sa.Column("id", _ID, primary_key=True))

_STORE = sa.MetaData()
#: What callers changed of their stored answers, by the record's id; see `stored`.
CHANGES = sa.Table(
    "stored_changes",
    _STORE,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("metadata", sa.Text, nullable=True),
    sa.Column("removed", sa.Boolean, nullable=False),
)

#: Few answers are stored, and they are listed by tenant.
IS_STORED = sa.text("inferences.stored")
_BY_STORED = sa.Index(
    "inferences_stored",
    INFERENCES.c.tenant,
    INFERENCES.c.id,
    sqlite_where=sa.text("stored"),
    postgresql_where=sa.text("stored"),
)

#: By month on PostgreSQL; the last one's partition is there when all are.
PARTITIONED = (INFERENCES, EXPOSURES, FEEDBACK, CHUNKS)

_TABLES: dict[type[Event], sa.Table] = {Inference: INFERENCES, Exposure: EXPOSURES, Feedback: FEEDBACK}
_NAMES = {kind: tuple(column.name for column in table.columns) for kind, table in _TABLES.items()}
_VALUES = {kind: attrgetter(*names) for kind, names in _NAMES.items()}
#: Columns that hold pairs, as JSON.
_PAIRS = {kind: [at for at, name in enumerate(names) if name in ("metadata", "tags")] for kind, names in _NAMES.items()}
_SQLITE_INSERT = {
    kind: str(sqlite.insert(table).on_conflict_do_nothing().compile(dialect=sqlite.dialect()))
    for kind, table in _TABLES.items()
}
_CHUNK = ("book", "page", "id", "until", "packed")
#: SQLite takes 999 values in a statement at least.
IN_ONE_MAX = 500


def _create(connection: Connection) -> None:
    _META.create_all(connection)


def _add_the_loop(connection: Connection) -> None:
    """Exposures and feedback; and what an inference needs for them, unless the first step made its table just now."""
    if "experiment" not in {column["name"] for column in sa.inspect(connection).get_columns("inferences")}:
        connection.exec_driver_sql("ALTER TABLE inferences ADD COLUMN experiment TEXT NOT NULL DEFAULT ''")
    connection.execute(sa.schema.CreateIndex(_BY_CONVERSATION, if_not_exists=True))
    _LOOP.create_all(connection)


def _add_stored_changes(connection: Connection) -> None:
    connection.execute(sa.schema.CreateIndex(_BY_STORED, if_not_exists=True))
    _STORE.create_all(connection)


STEPS: Sequence[Step] = (_create, _add_the_loop, _add_stored_changes)


def _create_taints(connection: Connection) -> None:
    _MARKS.create_all(connection)


TAINT_STEPS: Sequence[Step] = (_create_taints,)


def insert(connection: Connection, events: Sequence[Event]) -> None:
    """Add the events whose ids are new, and the chunks that these leave."""
    new: list[Event] = []
    for kind in _TABLES:
        some = [event for event in events if type(event) is kind]
        if some:
            adding = _add_on_server if connection.dialect.name == "postgresql" else _add_to_file
            new += adding(connection, kind, some)
    if left := chunks(new):
        rows = [{name: getattr(chunk, name) for name in _CHUNK} for chunk in left]
        connection.execute(sa.insert(CHUNKS), rows)
    tagged = {(code(e.experiment), tags_code(e)): e for e in new if isinstance(e, Exposure) and e.tags}
    for (book, number), event in tagged.items():
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        row = dialect.insert(TAGS).values(book=book, code=number, tags=_json(event.tags))
        connection.execute(row.on_conflict_do_nothing())
    if waiting := [{"id": event.id} for event in new if type(event) is Feedback]:
        connection.execute(sa.insert(PENDING), waiting)


def _add_on_server(connection: Connection, kind: type[Event], events: Sequence[Event]) -> list[Event]:
    """Returns the events that were new; of answers, those in an experiment, for others leave no chunk. A row that this
    transaction did not write was there before, or another ingester was faster. (RETURNING would tell as well, at three
    times the price: it takes one statement of thousands of values.)"""
    adding = postgresql.insert(_TABLES[kind]).on_conflict_do_nothing()
    connection.execute(adding, [dict(zip(_NAMES[kind], _to_row(event), strict=True)) for event in events])
    counting = _counting(events)
    ours = sa.text(
        f"SELECT id::text FROM {_TABLES[kind].name} "
        "WHERE id = ANY(CAST(:ids AS uuid[])) AND xmin = pg_current_xact_id()::xid"
    )
    added = set(connection.scalars(ours, {"ids": [event.id for event in counting]})) if counting else set()
    return [event for event in _first_of_each(counting) if event.id in added]


def _add_to_file(connection: Connection, kind: type[Event], events: Sequence[Event]) -> list[Event]:
    """The same; compiled once and given plain rows, which is a third less for each. Transactions here exclude each
    other, so what is not there before is new."""
    known: set[str] = set()
    counting = _counting(events)
    for start in range(0, len(counting), IN_ONE_MAX):
        some = counting[start : start + IN_ONE_MAX]
        places = ",".join("?" * len(some))
        found = connection.exec_driver_sql(
            f"SELECT id FROM {_TABLES[kind].name} WHERE id IN ({places})", tuple(event.id for event in some)
        )
        known.update(row[0] for row in found)
    connection.exec_driver_sql(_SQLITE_INSERT[kind], [_to_row(event) for event in events])
    return [event for event in _first_of_each(counting) if event.id not in known]


def _counting(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if type(event) is not Inference or event.experiment]


def _first_of_each(events: Sequence[Event]) -> list[Event]:
    return list({event.id: event for event in reversed(events)}.values())[::-1]


def advance(connection: Connection, file: str, offset: int) -> None:
    """Note that `file` is stored up to `offset`; never moves back."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    new = dialect.insert(OFFSETS).values(file=file, done=offset)
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[OFFSETS.c.file], set_={"done": new.excluded.done}, where=OFFSETS.c.done < new.excluded.done
        )
    )


def from_row(row: Sequence[Any]) -> Inference:
    return Inference(**_values(Inference, row))


def exposure_from_row(row: sa.Row[Any]) -> Exposure:
    return Exposure(**_values(Exposure, row))


def feedback_from_row(row: sa.Row[Any]) -> Feedback:
    return Feedback(**_values(Feedback, row))


def _values(kind: type[Event], row: Sequence[Any]) -> dict[str, Any]:
    values = dict(zip(_NAMES[kind], row, strict=True))
    for at in _PAIRS[kind]:
        values[_NAMES[kind][at]] = orjson.loads(row[at])
    return values


def _to_row(event: Event) -> tuple[Any, ...]:
    row: tuple[Any, ...] = _VALUES[type(event)](event)
    for at in _PAIRS[type(event)]:
        row = (*row[:at], _json(row[at]), *row[at + 1 :])
    return row


def _json(pairs: Mapping[str, str]) -> str:
    return orjson.dumps(pairs, default=dict).decode() if pairs else "{}"
