"""The tables of this floor, how they came to be, and how a row becomes a value."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from adapters.carried import Carried
from adapters.errors import Reason
from adapters.evidence import body_text
from adapters.lifecycle import State
from adapters.values import Alias, Audit, Evidence, Version

_META = sa.MetaData()

VERSIONS = sa.Table(
    "adapter_versions",
    _META,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(71), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("base_digest", sa.String(71), nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("alpha", sa.Double, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("coverage", sa.Text, nullable=False),
    sa.Column("reasons", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("origin", sa.String(16), nullable=False, server_default="upload"),
    sa.Column("source", sa.Text, nullable=False, server_default=""),
    sa.Column("base_name", sa.Text, nullable=False, server_default=""),
    sa.Column("labels", sa.Text, nullable=False, server_default=""),
    sa.Column("carried", sa.Text, nullable=False, server_default=""),
    sa.Column("template_digest", sa.String(71), nullable=False, server_default=""),
    sa.Column("moved_at", sa.Double, nullable=False, server_default="0"),
    sa.UniqueConstraint("name", "number"),
)

_BY_STATE = sa.Index("adapter_versions_by_state", VERSIONS.c.state, VERSIONS.c.name, VERSIONS.c.number)

ALIASES = sa.Table(
    "adapter_aliases",
    _META,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("alias", sa.String(63), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("previous", sa.Integer),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("on_unavailable", sa.String(16), nullable=False),
    sa.Column("moved_by", sa.Text, nullable=False),
    sa.Column("moved_at", sa.Double, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.ForeignKeyConstraint(["name", "number"], [VERSIONS.c.name, VERSIONS.c.number]),
)

AUDIT = sa.Table(
    "adapter_audit",
    _META,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False, index=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("subject", sa.String(140), nullable=False, index=True),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)

EVIDENCE = sa.Table(
    "adapter_evidence",
    _META,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["name", "number"], [VERSIONS.c.name, VERSIONS.c.number]),
    sa.Index("adapter_evidence_of", "name", "number", "kind"),
)


def _create(connection: Connection) -> None:
    """The tables as they are now: the steps that follow find theirs done on a new installation."""
    _META.create_all(connection)


def _carry_and_attest(connection: Connection) -> None:
    """Since issue 3: where a version came from and what it carries, pins, evidence, and when a version came to its
    state, which the audit rows of earlier days know."""
    inspector = sa.inspect(connection)
    for table in (VERSIONS, ALIASES):
        there = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                words = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {words}")
    _META.create_all(connection)
    subject = VERSIONS.c.name + ":" + sa.cast(VERSIONS.c.number, sa.Text)
    moved = sa.select(sa.func.max(AUDIT.c.at)).where(AUDIT.c.subject == subject).scalar_subquery()
    unknown = VERSIONS.c.moved_at == 0
    connection.execute(
        sa.update(VERSIONS).where(unknown).values(moved_at=sa.func.coalesce(moved, VERSIONS.c.created_at))
    )


def _index_states(connection: Connection) -> None:
    """Versions that are gone stay for ever: what serves is found without a look at each of them."""
    connection.execute(sa.schema.CreateIndex(_BY_STATE, if_not_exists=True))


STEPS = (_create, _carry_and_attest, _index_states)


def version_row(version: Version) -> dict[str, Any]:
    """The version as its table holds it."""
    row = {name: getattr(version, name) for name in Version.__slots__}
    carried = "" if version.carried == Carried() else json.dumps(asdict(version.carried))
    reasons = json.dumps([reason.document() for reason in version.reasons])
    return {
        **row,
        "state": str(version.state),
        "reasons": reasons,
        "labels": " ".join(version.labels),
        "carried": carried,
    }


def read_version(row: sa.Row[Any]) -> Version:
    """The version in a whole row of its table, taken apart by position: with thousands of versions in a routing
    snapshot, looking columns up by name is what takes time."""
    fields: tuple[Any, ...] = tuple(row)
    before, (reasons, note, origin, source, base_name, labels, carried, template_digest, moved_at) = (
        fields[:12],
        fields[12:],
    )
    id_, name, number, digest, state, created_at, created_by, base_digest, rank, alpha, size, coverage = before
    return Version(
        id=id_,
        name=name,
        number=number,
        digest=digest,
        state=_STATES[state],
        created_at=created_at,
        created_by=created_by,
        base_digest=base_digest,
        rank=rank,
        alpha=alpha,
        bytes=size,
        coverage=coverage,
        reasons=() if reasons == "[]" else tuple(Reason(**reason) for reason in json.loads(reasons)),
        note=note,
        origin=origin,
        source=source,
        base_name=base_name,
        labels=tuple(labels.split()) if labels else (),
        carried=_read_carried(carried) if carried else _NOTHING,
        template_digest=template_digest,
        moved_at=moved_at,
    )


def read_alias(row: sa.Row[Any]) -> Alias:
    """The alias in a whole row of its table, by position as well."""
    fields: tuple[Any, ...] = tuple(row)
    name, alias, number, previous, revision, on_unavailable, moved_by, moved_at, why, pinned = fields
    return Alias(
        name=name,
        alias=alias,
        number=number,
        previous=previous,
        revision=revision,
        on_unavailable=on_unavailable,
        moved_by=moved_by,
        moved_at=moved_at,
        why=why,
        pinned=pinned,
    )


def read_audit(row: sa.Row[Any]) -> Audit:
    fields = dict(row._mapping)
    del fields["id"], fields["name"]
    return Audit(**fields)


def evidence_row(evidence: Evidence) -> dict[str, Any]:
    """The evidence as its table holds it."""
    row = {name: getattr(evidence, name) for name in Evidence.__slots__}
    return {**row, "body": body_text(evidence.body)}


def read_evidence(row: sa.Row[Any]) -> Evidence:
    fields = dict(row._mapping)
    del fields["id"]
    return Evidence(**{**fields, "body": json.loads(fields["body"])})


def _read_carried(text: str) -> Carried:
    document = json.loads(text)
    return Carried(**{**document, "stop": tuple(document["stop"])})


_STATES = {str(state): state for state in State}
_NOTHING = Carried()
