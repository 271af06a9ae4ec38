"""`Files` on SQLite and PostgreSQL. Nothing here moves the revision: no gateway routes by files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from monitoring.database import answering, migrate, reading
from training.files.errors import FileNotFound, FilesUnavailable
from training.files.values import File, Purpose

_META = sa.MetaData()

FILES = sa.Table(
    "files",
    _META,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(63), nullable=False),
    sa.Column("purpose", sa.String(32), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("files_in_order", "tenant", "created_at", "id"),
)

STEPS = (_META.create_all,)

_FILE = TypeAdapter(File)


class SqlFiles:
    """Migrates its room when it is made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with answering("files'", FilesUnavailable):
            migrate(engine, "files", STEPS)

    def add(self, file: File) -> File:
        row = {
            "id": file.id,
            "tenant": file.tenant,
            "purpose": file.purpose,
            "bytes": file.bytes,
            "created_at": file.created_at,
            "body": _FILE.dump_json(file).decode(),
        }
        with answering("files'", FilesUnavailable), self._engine.begin() as connection:
            insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            connection.execute(insert(FILES).values(row).on_conflict_do_nothing())
            return _read(connection.execute(sa.select(FILES.c.body).where(FILES.c.id == file.id)).one())

    def get(self, tenant: str, id_: str) -> File:
        with self._reading() as connection:
            return _found(connection, tenant, id_)

    def list(
        self,
        tenant: str,
        *,
        purpose: Purpose | None = None,
        after: str = "",
        limit: int = 100,
        newest_first: bool = True,
    ) -> tuple[File, ...]:
        place = sa.tuple_(FILES.c.created_at, FILES.c.id)
        order = [column.desc() if newest_first else column.asc() for column in (FILES.c.created_at, FILES.c.id)]
        query = sa.select(FILES.c.body).where(FILES.c.tenant == tenant).order_by(*order).limit(limit)
        if purpose is not None:
            query = query.where(FILES.c.purpose == purpose)
        with self._reading() as connection:
            if after:
                known = _found(connection, tenant, after)
                edge = sa.tuple_(sa.literal(known.created_at), sa.literal(known.id))
                query = query.where(place < edge if newest_first else place > edge)
            return tuple(map(_read, connection.execute(query)))

    def remove(self, tenant: str, id_: str) -> File:
        with answering("files'", FilesUnavailable), self._engine.begin() as connection:
            found = _found(connection, tenant, id_)
            if not connection.execute(sa.delete(FILES).where(FILES.c.id == id_)).rowcount:
                raise FileNotFound(id_)  # somebody else was faster
            return found

    def total(self, tenant: str) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(FILES.c.bytes), 0)).where(FILES.c.tenant == tenant)
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def all(self) -> tuple[File, ...]:
        query = sa.select(FILES.c.body).order_by(FILES.c.created_at, FILES.c.id)
        with self._reading() as connection:
            return tuple(map(_read, connection.execute(query)))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with answering("files'", FilesUnavailable), reading(self._engine).begin() as connection:
            yield connection


def _found(connection: Connection, tenant: str, id_: str) -> File:
    query = sa.select(FILES.c.body).where(FILES.c.id == id_, FILES.c.tenant == tenant)
    if (row := connection.execute(query).one_or_none()) is None:
        raise FileNotFound(id_)
    return _read(row)


def _read(row: Any) -> File:
    return _FILE.validate_json(row.body)
