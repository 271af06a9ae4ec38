"""`Duties` on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from gateway.engines.fleet.store import Loads
from monitoring.database import migrate, reading

_META = sa.MetaData()

LEASE = sa.Table(
    "fleet_lease",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("owner", sa.String(256), nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)

LOADS = sa.Table(
    "fleet_loads",
    _META,
    sa.Column("replica", sa.String(128), primary_key=True),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
)


def _create(connection: Connection) -> None:
    _META.create_all(connection)
    connection.execute(sa.insert(LEASE).values(id=1, owner="", at=0.0))


STEPS = (_create,)


class SqlDuties:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine, "fleet_duties", STEPS)

    def on_duty(self, owner: str, *, now: float, ttl_s: float) -> bool:
        free = (LEASE.c.owner == owner) | (LEASE.c.owner == "") | (LEASE.c.at <= now - ttl_s)
        with self._engine.begin() as connection:
            taken = connection.execute(sa.update(LEASE).where(free).values(owner=owner, at=now))
            return taken.rowcount == 1

    def off_duty(self, owner: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.update(LEASE).where(LEASE.c.owner == owner).values(owner="", at=0.0))

    def loads(self, replica: str) -> Loads | None:
        with reading(self._engine).begin() as connection:
            row = connection.execute(sa.select(LOADS).where(LOADS.c.replica == replica)).first()
        return None if row is None else Loads(started_at=row.started_at, count=row._mapping["count"])

    def note_loads(self, replica: str, loads: Loads) -> None:
        row = {"started_at": loads.started_at, "count": loads.count}
        with self._engine.begin() as connection:
            done = connection.execute(sa.update(LOADS).where(LOADS.c.replica == replica).values(row))
            if not done.rowcount:
                connection.execute(sa.insert(LOADS).values(replica=replica, **row))
