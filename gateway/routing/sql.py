"""`FleetStore` on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from gateway.routing.store import Beat
from monitoring.database import bump, migrate, reading

_META = sa.MetaData()

RESIDENTS = sa.Table(
    "fleet_residents",
    _META,
    sa.Column("replica", sa.String(128), primary_key=True),
    sa.Column("name", sa.String(160), primary_key=True),
)

BEATS = sa.Table(
    "fleet_beats",
    _META,
    sa.Column("gateway", sa.String(128), primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("inflight", sa.Text, nullable=False),
)


def _create(connection: Connection) -> None:
    _META.create_all(connection)


STEPS = (_create,)


class SqlFleetStore:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine, "fleet", STEPS)

    def residents(self) -> Mapping[str, frozenset[str]]:
        with reading(self._engine).begin() as connection:
            return residents(connection)

    def hold(self, replica: str, names: frozenset[str]) -> None:
        with reading(self._engine).begin() as connection:
            before = residents(connection).get(replica, frozenset())
        if before == names:
            return
        with self._engine.begin() as connection:
            before = residents(connection).get(replica, frozenset())
            gone, new = before - names, names - before
            if gone:
                match = (RESIDENTS.c.replica == replica) & (RESIDENTS.c.name == sa.bindparam("gone"))
                connection.execute(sa.delete(RESIDENTS).where(match), [{"gone": d} for d in gone])
            if new:
                connection.execute(sa.insert(RESIDENTS), [{"replica": replica, "name": d} for d in new])
            if gone or new:
                bump(connection)

    def beat(self, beat: Beat) -> None:
        row = {"at": beat.at, "revision": beat.revision, "inflight": json.dumps(dict(beat.inflight))}
        with self._engine.begin() as connection:
            done = connection.execute(sa.update(BEATS).where(BEATS.c.gateway == beat.gateway).values(row))
            if not done.rowcount:
                connection.execute(sa.insert(BEATS).values(gateway=beat.gateway, **row))

    def beats(self, since: float) -> Sequence[Beat]:
        query = sa.select(BEATS).where(BEATS.c.at >= since).order_by(BEATS.c.gateway)
        with reading(self._engine).begin() as connection:
            rows = connection.execute(query).all()
        return [Beat(gateway=r.gateway, at=r.at, revision=r.revision, inflight=json.loads(r.inflight)) for r in rows]


def residents(connection: Connection) -> Mapping[str, frozenset[str]]:
    """Replica → engine-side names, as this transaction sees them."""
    held: dict[str, set[str]] = {}
    for replica, name in connection.execute(sa.select(RESIDENTS.c.replica, RESIDENTS.c.name)):
        held.setdefault(replica, set()).add(name)
    return {replica: frozenset(names) for replica, names in held.items()}
