"""`Store` on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from gateway.access.errors import KeyNotFound, KeysUnavailable
from gateway.access.keys import Key, Limits, Role
from gateway.access.store import taken
from monitoring.database import bump, migrate, reading

_META = sa.MetaData()

KEYS = sa.Table(
    "access_keys",
    _META,
    # The key's row in the quota ledger: never used twice, or a new key would inherit what an old one spent.
    sa.Column("number", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("tenant", sa.String(63), nullable=False, index=True),
    sa.Column("name", sa.String(120), nullable=False),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("revoked_at", sa.Double),
    sa.Column("revoked_by", sa.Text, nullable=False),
    sa.Column("models", sa.Text),
    sa.Column("capture", sa.String(16), nullable=False),
    sa.Column("requests_per_min", sa.BigInteger),
    sa.Column("tokens_per_min", sa.BigInteger),
    sa.Column("concurrent", sa.BigInteger),
    sa.Column("token_budget", sa.BigInteger),
    sqlite_autoincrement=True,
)


def _create(connection: Connection) -> None:
    _META.create_all(connection)


STEPS = (_create,)


class SqlStore:
    """Migrates its room when it is made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine, "access", STEPS)

    def insert(self, key: Key) -> Key:
        try:
            with _translated(), self._engine.begin() as connection:
                connection.execute(sa.insert(KEYS).values(_row(key)))
                bump(connection)
                return _find(connection, key.id)
        except sa.exc.IntegrityError as error:
            raise taken(key) from error

    def get(self, key_id: str) -> Key:
        with _translated(), reading(self._engine).begin() as connection:
            return _find(connection, key_id)

    def list(self, tenant: str | None = None) -> Sequence[Key]:
        query = sa.select(KEYS).order_by(KEYS.c.number)
        if tenant is not None:
            query = query.where(KEYS.c.tenant == tenant)
        with _translated(), reading(self._engine).begin() as connection:
            return [_key(row) for row in connection.execute(query)]

    def revoke(self, key_id: str, *, who: str, now: float) -> Key:
        standing = (KEYS.c.id == key_id) & KEYS.c.revoked_at.is_(None)
        with _translated(), self._engine.begin() as connection:
            _find(connection, key_id)
            done = connection.execute(sa.update(KEYS).where(standing).values(revoked_at=now, revoked_by=who))
            if done.rowcount:
                bump(connection)
            return _find(connection, key_id)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise  # a question of what is in the rows, for the caller to answer
    except sa.exc.SQLAlchemyError as error:
        raise KeysUnavailable from error


def _find(connection: Connection, key_id: str) -> Key:
    spelled = key_id.isascii() and key_id.isalnum()  # PostgreSQL takes no NUL, the driver no surrogates
    row = connection.execute(sa.select(KEYS).where(KEYS.c.id == key_id)).first() if spelled else None
    if row is None:
        raise KeyNotFound(key_id)
    return _key(row)


def _row(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "roles": json.dumps(sorted(key.roles)),
        "digest": key.digest,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "revoked_by": key.revoked_by,
        "models": None if key.models is None else json.dumps(sorted(key.models)),
        "capture": key.capture,
        **dict(key.limits.items()),
    }


def _key(row: sa.Row[Any]) -> Key:
    return Key(
        index=row.number,
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        roles=frozenset(Role(role) for role in json.loads(row.roles)),
        digest=bytes(row.digest),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        models=None if row.models is None else frozenset(json.loads(row.models)),
        capture=row.capture,
        limits=Limits(
            requests_per_min=row.requests_per_min,
            tokens_per_min=row.tokens_per_min,
            concurrent=row.concurrent,
            token_budget=row.token_budget,
        ),
    )
