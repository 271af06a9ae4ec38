"""Rows of keys: what the store must do, and the twin in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gateway.access.errors import BadKey, KeyNotFound
from gateway.access.keys import Key


class Store(Protocol):
    """No policy: who may make or revoke keys is decided by the routes. Every change moves the revision."""

    def insert(self, key: Key) -> Key:
        """Keep a minted key; returns it with the index it has from now on. BadKey when its id is taken."""
        ...

    def get(self, key_id: str) -> Key:
        """KeyNotFound."""
        ...

    def list(self, tenant: str | None = None) -> Sequence[Key]:
        """Every key, of one tenant or of all, revoked ones too; oldest first."""
        ...

    def revoke(self, key_id: str, *, who: str, now: float) -> Key:
        """End a key at `now`, unix seconds. Revoking again changes nothing. KeyNotFound."""
        ...


class MemoryStore:
    """The twin for tests."""

    def __init__(self) -> None:
        self.revision = 1
        self._keys: dict[str, Key] = {}

    def insert(self, key: Key) -> Key:
        if key.id in self._keys:
            raise taken(key)
        stored = replace(key, index=len(self._keys) + 1)
        self._keys[key.id] = stored
        self.revision += 1
        return stored

    def get(self, key_id: str) -> Key:
        if key_id not in self._keys:
            raise KeyNotFound(key_id)
        return self._keys[key_id]

    def list(self, tenant: str | None = None) -> Sequence[Key]:
        return [key for key in self._keys.values() if tenant is None or key.tenant == tenant]

    def revoke(self, key_id: str, *, who: str, now: float) -> Key:
        key = self.get(key_id)
        if key.revoked_at is None:
            key = self._keys[key_id] = replace(key, revoked_at=now, revoked_by=who)
            self.revision += 1
        return key


def taken(key: Key) -> BadKey:
    return BadKey([f"There is a key {key.id!r} already. Make a new one; ids are never used again."])
