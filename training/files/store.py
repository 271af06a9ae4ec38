"""Rows of files: the Protocol, and the twin in memory."""

from __future__ import annotations

import threading
from typing import Protocol

from training.files.errors import FileNotFound
from training.files.values import File, Purpose


class Files(Protocol):
    """What routes and the worker need. Synchronous; all may raise FilesUnavailable. Rows never change."""

    def add(self, file: File) -> File:
        """Keep the row. A known id is returned as it stands."""
        ...

    def get(self, tenant: str, id_: str) -> File:
        """FileNotFound, for another tenant's too."""
        ...

    def list(
        self,
        tenant: str,
        *,
        purpose: Purpose | None = None,
        after: str = "",
        limit: int = 100,
        newest_first: bool = True,
    ) -> tuple[File, ...]:
        """A tenant's files, from the one that follows `after`. FileNotFound for `after`."""
        ...

    def remove(self, tenant: str, id_: str) -> File:
        """Take the row out; returns it. FileNotFound."""
        ...

    def total(self, tenant: str) -> int:
        """Bytes of all of a tenant's files."""
        ...

    def all(self) -> tuple[File, ...]:
        """Every tenant's, for whoever clears up."""
        ...


class MemoryFiles:
    """The twin for tests; one process, any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._files: dict[str, File] = {}

    def add(self, file: File) -> File:
        with self._lock:
            return self._files.setdefault(file.id, file)

    def get(self, tenant: str, id_: str) -> File:
        found = self._files.get(id_)
        if found is None or found.tenant != tenant:
            raise FileNotFound(id_)
        return found

    def list(
        self,
        tenant: str,
        *,
        purpose: Purpose | None = None,
        after: str = "",
        limit: int = 100,
        newest_first: bool = True,
    ) -> tuple[File, ...]:
        with self._lock:
            found = [each for each in self._files.values() if each.tenant == tenant]
            edge = _place(self.get(tenant, after)) if after else None
        found.sort(key=_place, reverse=newest_first)
        kept = [each for each in found if purpose in (None, each.purpose)]
        if edge is not None:
            kept = [each for each in kept if (_place(each) < edge if newest_first else _place(each) > edge)]
        return tuple(kept[:limit])

    def remove(self, tenant: str, id_: str) -> File:
        with self._lock:
            found = self.get(tenant, id_)
            del self._files[id_]
            return found

    def total(self, tenant: str) -> int:
        with self._lock:
            return sum(each.bytes for each in self._files.values() if each.tenant == tenant)

    def all(self) -> tuple[File, ...]:
        with self._lock:
            return tuple(sorted(self._files.values(), key=_place))


def _place(file: File) -> tuple[float, str]:
    return file.created_at, file.id
