"""`Store` on SQLite and PostgreSQL.

A change locks the revision row first: on PostgreSQL this is the queue in which writers wait, so that what a change
reads is still true when it writes. SQLite queues whole transactions by itself. Each audit row moves the revision.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from adapters import changes
from adapters.errors import Reason, Unavailable
from adapters.lifecycle import CURRENT, State
from adapters.values import Alias, Audit, Draft, OnUnavailable, Version
from monitoring.database import REVISION, bump, migrate, reading

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
    sa.UniqueConstraint("name", "number"),
)

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


def _create(connection: Connection) -> None:
    _META.create_all(connection)


STEPS = (_create,)


class SqlStore:
    """Migrates its room when it is made."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        with _translated():
            migrate(engine, "adapters", STEPS)

    def insert(self, draft: Draft) -> Version:
        current = [str(state) for state in CURRENT]
        same = sa.select(VERSIONS).where(
            VERSIONS.c.name == draft.name, VERSIONS.c.digest == draft.digest, VERSIONS.c.state.in_(current)
        )
        last = sa.select(sa.func.max(VERSIONS.c.number)).where(VERSIONS.c.name == draft.name)
        with self._changing() as connection:
            if row := connection.execute(same).first():
                return _version(row)
            number = connection.execute(last).scalar_one() or 0
            version = changes.numbered(draft, number + 1, now=self._clock())
            connection.execute(sa.insert(VERSIONS).values(_row(version)))
            _note(connection, version.name, changes.registered(version))
            return version

    def get(self, name: str, number: int) -> Version:
        with self._reading() as connection:
            return _find(connection, name, number)

    def by_digest(self, digest: str) -> tuple[Version, ...]:
        query = sa.select(VERSIONS).where(VERSIONS.c.digest == digest)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(VERSIONS.c.created_at, VERSIONS.c.name, VERSIONS.c.number))
            return tuple(_version(row) for row in rows)

    def list(self, name: str | None = None) -> tuple[Version, ...]:
        query = sa.select(VERSIONS).order_by(VERSIONS.c.name, VERSIONS.c.number)
        if name is not None:
            query = query.where(VERSIONS.c.name == name)
        with self._reading() as connection:
            return tuple(_version(row) for row in connection.execute(query))

    def move(
        self,
        name: str,
        number: int,
        expected: State,
        to: State,
        *,
        who: str,
        why: str,
        reasons: Sequence[Reason] | None = None,
        take_down: bool = False,
    ) -> Version:
        theirs = (ALIASES.c.name == name) & (ALIASES.c.number == number)
        with self._changing() as connection:
            version = _find(connection, name, number)
            rows = connection.execute(sa.select(ALIASES).where(theirs).order_by(ALIASES.c.alias))
            pointing = tuple(_alias(row) for row in rows)
            last = _last(connection, changes.subject(version))
            after = changes.moved(version, expected, to, reasons, pointing, last, take_down=take_down)
            now = self._clock()
            connection.execute(sa.delete(ALIASES).where(theirs))
            for alias in pointing:
                _note(connection, name, changes.taken_down(alias, who=who, why=why, now=now))
            connection.execute(sa.update(VERSIONS).where(VERSIONS.c.id == after.id).values(_row(after)))
            _note(connection, name, changes.moving(version, after, who=who, why=why, now=now))
            return after

    def alias(self, name: str, alias: str) -> Alias:
        with self._reading() as connection:
            if (found := _held(connection, name, alias)) is None:
                raise changes.no_alias(name, alias)
            return found

    def aliases(self, name: str | None = None) -> tuple[Alias, ...]:
        query = sa.select(ALIASES).order_by(ALIASES.c.name, ALIASES.c.alias)
        if name is not None:
            query = query.where(ALIASES.c.name == name)
        with self._reading() as connection:
            return tuple(_alias(row) for row in connection.execute(query))

    def point(
        self,
        name: str,
        alias: str,
        *,
        expected: int | None,
        to: int,
        who: str,
        why: str,
        on_unavailable: OnUnavailable | None = None,
    ) -> Alias:
        move = changes.Pointing(name=name, alias=alias, expected=expected, to=to, on_unavailable=on_unavailable)
        with self._changing() as connection:
            held = _held(connection, name, alias)
            version = _find(connection, name, to)
            after = changes.pointed(held, version, move, who=who, why=why, now=self._clock())
            if held is None:
                connection.execute(sa.insert(ALIASES).values(asdict(after)))
            else:
                ours = (ALIASES.c.name == name) & (ALIASES.c.alias == alias)
                connection.execute(sa.update(ALIASES).where(ours).values(asdict(after)))
            _note(connection, name, changes.pointing(held, after))
            return after

    def audit(self, name: str | None = None, limit: int = 100) -> tuple[Audit, ...]:
        query = sa.select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        if name is not None:
            query = query.where(AUDIT.c.name == name)
        with self._reading() as connection:
            return tuple(_audit(row) for row in connection.execute(query))

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with _translated(), self._engine.begin() as connection:
            connection.execute(sa.select(REVISION.c.id).with_for_update())
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _translated(), reading(self._engine).begin() as connection:
            yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        what = str(error).splitlines()[0]
        raise Unavailable(f"The registry's database did not answer: {what}. Nothing was changed.") from error


def _find(connection: Connection, name: str, number: int) -> Version:
    found = connection.execute(sa.select(VERSIONS).where(VERSIONS.c.name == name, VERSIONS.c.number == number)).first()
    if found is None:
        raise changes.no_version(name, number)
    return _version(found)


def _held(connection: Connection, name: str, alias: str) -> Alias | None:
    found = connection.execute(sa.select(ALIASES).where(ALIASES.c.name == name, ALIASES.c.alias == alias)).first()
    return None if found is None else _alias(found)


def _last(connection: Connection, subject: str) -> Audit | None:
    query = sa.select(AUDIT).where(AUDIT.c.subject == subject).order_by(AUDIT.c.id.desc()).limit(1)
    found = connection.execute(query).first()
    return None if found is None else _audit(found)


def _note(connection: Connection, name: str, row: Audit) -> None:
    connection.execute(sa.insert(AUDIT).values(name=name, **asdict(row)))
    bump(connection)


def _row(version: Version) -> dict[str, Any]:
    reasons = json.dumps([reason.document() for reason in version.reasons])
    return {**asdict(version), "state": str(version.state), "reasons": reasons}


def _version(row: sa.Row[Any]) -> Version:
    fields = dict(row._mapping)
    reasons = tuple(Reason(**reason) for reason in json.loads(fields.pop("reasons")))
    return Version(**{**fields, "state": State(fields["state"]), "reasons": reasons})


def _alias(row: sa.Row[Any]) -> Alias:
    return Alias(**row._mapping)


def _audit(row: sa.Row[Any]) -> Audit:
    fields = dict(row._mapping)
    del fields["id"], fields["name"]
    return Audit(**fields)
