"""`FleetStore` on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from gateway.routing.store import Beat, Out, Poison
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
    sa.Column("by_replica", sa.Text, nullable=False),  # since step 2
)


OUT = sa.Table(
    "fleet_out",
    _META,
    sa.Column("replica", sa.String(128), primary_key=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
)

POISONS = sa.Table(
    "fleet_poisons",
    _META,
    sa.Column("replica", sa.String(128), primary_key=True),
    sa.Column("engine_name", sa.String(160), primary_key=True),
    sa.Column("at", sa.Double, primary_key=True),
    sa.Column("gateway", sa.String(128), primary_key=True),
    sa.Column("contained", sa.Boolean, nullable=False, server_default=sa.false()),  # since step 3
)

#: Reports older than this are of engines that are long gone.
POISONS_KEPT_S = 7 * 86400.0
_POISONS_MAX = 10_000


def _create(connection: Connection) -> None:
    first = sa.MetaData()
    sa.Table(
        "fleet_beats",
        first,
        sa.Column("gateway", sa.String(128), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("inflight", sa.Text, nullable=False),
    )
    first.create_all(connection)
    _META.create_all(connection, tables=[RESIDENTS])


def _add_out_and_poison(connection: Connection) -> None:
    _META.create_all(connection, tables=[OUT, POISONS])
    connection.execute(sa.text("ALTER TABLE fleet_beats ADD COLUMN by_replica TEXT DEFAULT '{}' NOT NULL"))


def _add_contained(connection: Connection) -> None:
    """The step before makes the table as it is now: on a new installation there is nothing to do."""
    if "contained" not in {column["name"] for column in sa.inspect(connection).get_columns(POISONS.name)}:
        words = sa.schema.CreateColumn(POISONS.c.contained).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {POISONS.name} ADD COLUMN {words}")


STEPS = (_create, _add_out_and_poison, _add_contained)


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
        row = {
            "at": beat.at,
            "revision": beat.revision,
            "inflight": json.dumps(dict(beat.inflight)),
            "by_replica": json.dumps(dict(beat.by_replica)),
        }
        with self._engine.begin() as connection:
            done = connection.execute(sa.update(BEATS).where(BEATS.c.gateway == beat.gateway).values(row))
            if not done.rowcount:
                connection.execute(sa.insert(BEATS).values(gateway=beat.gateway, **row))

    def beats(self, since: float) -> Sequence[Beat]:
        query = sa.select(BEATS).where(BEATS.c.at >= since).order_by(BEATS.c.gateway)
        with reading(self._engine).begin() as connection:
            rows = connection.execute(query).all()
        return [
            Beat(
                gateway=r.gateway,
                at=r.at,
                revision=r.revision,
                inflight=json.loads(r.inflight),
                by_replica=json.loads(r.by_replica),
            )
            for r in rows
        ]

    def take_out(self, replica: str, *, why: str, at: float, started_at: float = 0.0) -> None:
        with self._engine.begin() as connection:
            held = outs(connection).get(replica)
            if held is None or (started_at and started_at != held.started_at):
                connection.execute(sa.delete(OUT).where(OUT.c.replica == replica))
                connection.execute(sa.insert(OUT).values(replica=replica, why=why, at=at, started_at=started_at))
                bump(connection)

    def bring_back(self, replica: str) -> None:
        with self._engine.begin() as connection:
            if connection.execute(sa.delete(OUT).where(OUT.c.replica == replica)).rowcount:
                bump(connection)

    def out(self) -> Mapping[str, Out]:
        with reading(self._engine).begin() as connection:
            return outs(connection)

    def poison(self, poison: Poison) -> None:
        row = {
            "replica": poison.replica,
            "engine_name": poison.engine_name,
            "at": poison.at,
            "gateway": poison.gateway,
        }
        same = sa.and_(*(POISONS.c[name] == value for name, value in row.items()))
        with self._engine.begin() as connection:
            known = connection.execute(sa.select(POISONS.c.contained).where(same)).first()
            if known is None:
                connection.execute(sa.insert(POISONS).values(**row, contained=poison.contained))
                connection.execute(sa.delete(POISONS).where(POISONS.c.at < poison.at - POISONS_KEPT_S))
            elif known.contained and not poison.contained:
                connection.execute(sa.update(POISONS).where(same).values(contained=False))

    def poisons(self, since: float) -> Sequence[Poison]:
        query = sa.select(POISONS).where(POISONS.c.at >= since)
        query = query.order_by(POISONS.c.at, POISONS.c.replica, POISONS.c.engine_name).limit(_POISONS_MAX)
        with reading(self._engine).begin() as connection:
            rows = connection.execute(query).all()
        return [
            Poison(replica=r.replica, engine_name=r.engine_name, at=r.at, gateway=r.gateway, contained=r.contained)
            for r in rows
        ]


def outs(connection: Connection) -> Mapping[str, Out]:
    """The replicas that are out, as this transaction sees them."""
    rows = connection.execute(sa.select(OUT))
    return {r.replica: Out(why=r.why, at=r.at, started_at=r.started_at) for r in rows}


def residents(connection: Connection) -> Mapping[str, frozenset[str]]:
    """Replica → engine-side names, as this transaction sees them."""
    held: dict[str, set[str]] = {}
    for replica, name in connection.execute(sa.select(RESIDENTS.c.replica, RESIDENTS.c.name)):
        held.setdefault(replica, set()).add(name)
    return {replica: frozenset(names) for replica, names in held.items()}
