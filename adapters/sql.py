"""`Store` on SQLite and PostgreSQL.

A change locks the revision row first: on PostgreSQL this is the queue in which writers wait, so that what a change
reads is still true when it writes. SQLite queues whole transactions by itself. Each change moves the revision once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from adapters import changes, trail
from adapters.errors import Reason, Unavailable
from adapters.evidence import KEPT_MAX
from adapters.lifecycle import CURRENT, State
from adapters.tables import (
    ALIASES,
    AUDIT,
    EVIDENCE,
    STEPS,
    VERSIONS,
    evidence_row,
    read_alias,
    read_audit,
    read_evidence,
    read_version,
    version_row,
)
from adapters.values import Alias, Audit, Draft, Evidence, Kind, OnUnavailable, Version
from monitoring.database import REVISION, answering, bump, migrate, reading

#: How far back an alias's moves are looked through for a version that may still serve.
_EARLIER_MAX = 100


class SqlStore:
    """Migrates its room when it is made."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        with answering("registry's", Unavailable):
            migrate(engine, "adapters", STEPS)

    def insert(self, draft: Draft) -> Version:
        current = [str(state) for state in CURRENT]
        same = sa.select(VERSIONS).where(
            VERSIONS.c.name == draft.name, VERSIONS.c.digest == draft.digest, VERSIONS.c.state.in_(current)
        )
        last = sa.select(sa.func.max(VERSIONS.c.number)).where(VERSIONS.c.name == draft.name)
        with self._changing() as connection:
            if row := connection.execute(same).first():
                return read_version(row)
            number = connection.execute(last).scalar_one() or 0
            change = changes.inserted(draft, number + 1, now=self._clock())
            connection.execute(sa.insert(VERSIONS).values(version_row(change.version)))
            return _note(connection, change)

    def get(self, name: str, number: int) -> Version:
        with self._reading() as connection:
            return _find(connection, name, number)

    def by_digest(self, digest: str) -> tuple[Version, ...]:
        query = sa.select(VERSIONS).where(VERSIONS.c.digest == digest)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(VERSIONS.c.created_at, VERSIONS.c.name, VERSIONS.c.number))
            return tuple(read_version(row) for row in rows)

    def list(self, name: str | None = None, *, states: Collection[State] | None = None) -> tuple[Version, ...]:
        query = sa.select(VERSIONS).order_by(VERSIONS.c.name, VERSIONS.c.number)
        if name is not None:
            query = query.where(VERSIONS.c.name == name)
        if states is not None:
            query = query.where(VERSIONS.c.state.in_(sorted(map(str, states))))
        with self._reading() as connection:
            return tuple(map(read_version, connection.execute(query).all()))

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
        labels: Sequence[str] = (),
        evidence: Sequence[Evidence] = (),
        take_down: bool = False,
    ) -> Version:
        wish = changes.Moving(expected=expected, to=to, reasons=reasons, labels=labels, take_down=take_down)
        with self._changing() as connection:
            version = _find(connection, name, number)
            pointing = [alias for alias in _aliases(connection, name) if alias.number == number]
            change = changes.moved(version, wish, pointing, _last(connection, version), self._by(who, why))
            for found in evidence:
                _keep(connection, found)
            return _apply(connection, change)

    def admit(self, name: str, number: int, *, who: str, why: str, live_allowed: bool = True) -> Version:
        with self._changing() as connection:
            version, aliases = _find(connection, name, number), _aliases(connection, name)
            last, by = _last(connection, version), self._by(who, why)
            return _apply(connection, changes.admitted(version, aliases, last, by, live_allowed=live_allowed))

    def withdraw(self, name: str, number: int, *, who: str, why: str, reasons: Sequence[Reason]) -> Version:
        verified = sa.select(VERSIONS.c.number).where(VERSIONS.c.name == name, VERSIONS.c.state == str(State.VERIFIED))
        with self._changing() as connection:
            version = _find(connection, name, number)
            pointing = [alias for alias in _aliases(connection, name) if alias.number == number]
            servable = frozenset(connection.scalars(verified)) if pointing else frozenset()

            def earlier(alias: Alias) -> int | None:
                rows = _rows(connection, f"{alias.name}@{alias.alias}", _EARLIER_MAX)
                return changes.earlier(rows, servable, number)

            last, by = _last(connection, version), self._by(who, why)
            return _apply(connection, changes.withdrawn(version, reasons, pointing, earlier, last, by))

    def alias(self, name: str, alias: str) -> Alias:
        with self._reading() as connection:
            return _held(connection, name, alias)

    def aliases(self, name: str | None = None) -> tuple[Alias, ...]:
        with self._reading() as connection:
            return _aliases(connection, name)

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
        override: Evidence | None = None,
    ) -> Alias:
        wish = changes.Pointing(name=name, alias=alias, expected=expected, to=to, on_unavailable=on_unavailable)
        with self._changing() as connection:
            held = next((found for found in _aliases(connection, name) if found.alias == alias), None)
            version = _find(connection, name, to)
            change = changes.pointed(held, version, wish, self._by(who, why), override=override)
            _apply(connection, change)
            if override is not None:
                _keep(connection, override)
            return change.aliases[0]

    def pin(self, name: str, alias: str, pinned: bool, *, who: str, why: str) -> Alias:
        with self._changing() as connection:
            held = _held(connection, name, alias)
            change = changes.pinned(held, _find(connection, name, held.number), pinned, self._by(who, why))
            _apply(connection, change)
            return change.aliases[0]

    def attest(self, evidence: Evidence) -> None:
        with answering("registry's", Unavailable), self._engine.begin() as connection:
            _find(connection, evidence.name, evidence.number)
            _keep(connection, evidence)

    def evidence(self, name: str, number: int, kind: Kind | None = None) -> tuple[Evidence, ...]:
        query = sa.select(EVIDENCE).where(EVIDENCE.c.name == name, EVIDENCE.c.number == number).order_by(EVIDENCE.c.id)
        if kind is not None:
            query = query.where(EVIDENCE.c.kind == kind)
        with self._reading() as connection:
            return tuple(read_evidence(row) for row in connection.execute(query))

    def audit(self, name: str | None = None, limit: int = 100) -> tuple[Audit, ...]:
        query = sa.select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        if name is not None:
            query = query.where(AUDIT.c.name == name)
        with self._reading() as connection:
            return tuple(read_audit(row) for row in connection.execute(query))

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with answering("registry's", Unavailable), self._engine.begin() as connection:
            connection.execute(sa.select(REVISION.c.id).with_for_update())
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with answering("registry's", Unavailable), reading(self._engine).begin() as connection:
            yield connection

    def _by(self, who: str, why: str) -> trail.By:
        return trail.By(who=who, why=why, at=self._clock())


def _find(connection: Connection, name: str, number: int) -> Version:
    found = connection.execute(sa.select(VERSIONS).where(VERSIONS.c.name == name, VERSIONS.c.number == number)).first()
    if found is None:
        raise changes.no_version(name, number)
    return read_version(found)


def _held(connection: Connection, name: str, alias: str) -> Alias:
    found = connection.execute(sa.select(ALIASES).where(ALIASES.c.name == name, ALIASES.c.alias == alias)).first()
    if found is None:
        raise changes.no_alias(name, alias)
    return read_alias(found)


def _aliases(connection: Connection, name: str | None) -> tuple[Alias, ...]:
    query = sa.select(ALIASES).order_by(ALIASES.c.name, ALIASES.c.alias)
    if name is not None:
        query = query.where(ALIASES.c.name == name)
    return tuple(read_alias(row) for row in connection.execute(query))


def _rows(connection: Connection, subject: str, limit: int) -> list[Audit]:
    query = sa.select(AUDIT).where(AUDIT.c.subject == subject).order_by(AUDIT.c.id.desc()).limit(limit)
    return [read_audit(row) for row in connection.execute(query)]


def _last(connection: Connection, version: Version) -> changes.Last:
    return lambda: next(iter(_rows(connection, trail.subject(version), 1)), None)


def _apply(connection: Connection, change: changes.Change) -> Version:
    """Write what the change says, if it says anything."""
    if not change.rows:
        return change.version
    row = version_row(change.version)
    connection.execute(sa.update(VERSIONS).where(VERSIONS.c.id == change.version.id).values(row))
    for alias in (*change.gone, *change.aliases):
        theirs = (ALIASES.c.name == alias.name) & (ALIASES.c.alias == alias.alias)
        connection.execute(sa.delete(ALIASES).where(theirs))
    for alias in change.aliases:
        connection.execute(sa.insert(ALIASES).values(asdict(alias)))
    return _note(connection, change)


def _note(connection: Connection, change: changes.Change) -> Version:
    name = change.version.name
    connection.execute(sa.insert(AUDIT), [{"name": name, **asdict(row)} for row in change.rows])
    bump(connection)
    return change.version


def _keep(connection: Connection, evidence: Evidence) -> None:
    """Write evidence, and drop the oldest of the same kind and subject beyond what is kept."""
    connection.execute(sa.insert(EVIDENCE).values(evidence_row(evidence)))
    alike = (
        (EVIDENCE.c.name == evidence.name)
        & (EVIDENCE.c.number == evidence.number)
        & (EVIDENCE.c.kind == evidence.kind)
        & (EVIDENCE.c.subject == evidence.subject)
    )
    newest = sa.select(EVIDENCE.c.id).where(alike).order_by(EVIDENCE.c.id.desc()).offset(KEPT_MAX).limit(1)
    if (oldest := connection.execute(newest).scalar()) is not None:
        connection.execute(sa.delete(EVIDENCE).where(alike, EVIDENCE.c.id <= oldest))
