"""Rows of versions, aliases and what was done to them: the Protocol, and the twin in memory. Policy is in registry.py.

Every change is one transaction that also writes an audit row and moves the revision. Two rules are kept inside it,
because only a transaction can: an alias points at verified versions only, and what one points at stays verified.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from adapters import changes
from adapters.errors import Reason
from adapters.lifecycle import CURRENT, State
from adapters.values import Alias, Audit, Draft, OnUnavailable, Version

__all__ = ["Alias", "Audit", "Draft", "MemoryStore", "OnUnavailable", "Store", "Version"]


class Store(Protocol):
    """What the registry and the gateway need. Synchronous; all may raise Unavailable."""

    def insert(self, draft: Draft) -> Version:
        """Give the draft the next number of its name, in state uploaded. The same name and digest on its way to
        serve, or there, is returned as it is, and nothing changes."""
        ...

    def get(self, name: str, number: int) -> Version:
        """NotFound."""
        ...

    def by_digest(self, digest: str) -> tuple[Version, ...]:
        """Every version with these bytes, under any name, in any state; oldest first."""
        ...

    def list(self, name: str | None = None) -> tuple[Version, ...]:
        """Every version of one name or of all, by name and number."""
        ...

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
        """Compare-and-set on the state. IllegalMove by the table; Conflict when the state is another, or when an alias
        points at a version that would stop being verified, unless `take_down` removes such aliases with it."""
        ...

    def alias(self, name: str, alias: str) -> Alias:
        """NotFound."""
        ...

    def aliases(self, name: str | None = None) -> tuple[Alias, ...]:
        """Every alias of one name or of all, by name and alias."""
        ...

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
        """Compare-and-set on the version an alias points at; `expected=None` makes a new alias. NotFound for an unknown
        version, IllegalMove for one that is not verified, Conflict saying who moved the alias and when."""
        ...

    def audit(self, name: str | None = None, limit: int = 100) -> tuple[Audit, ...]:
        """The newest rows first, of one name or of all."""
        ...


class MemoryStore:
    """The twin for tests; one process, any number of threads."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.revision = 1
        self._clock = clock
        self._lock = threading.RLock()
        self._versions: dict[tuple[str, int], Version] = {}
        self._aliases: dict[tuple[str, str], Alias] = {}
        self._audit: list[tuple[str, Audit]] = []

    def insert(self, draft: Draft) -> Version:
        with self._lock:
            known = self.list(draft.name)
            same = [version for version in known if version.digest == draft.digest and version.state in CURRENT]
            if same:
                return same[0]
            version = changes.numbered(draft, known[-1].number + 1 if known else 1, now=self._clock())
            self._versions[version.name, version.number] = version
            self._note(version.name, changes.registered(version))
            return version

    def get(self, name: str, number: int) -> Version:
        if (found := self._versions.get((name, number))) is None:
            raise changes.no_version(name, number)
        return found

    def by_digest(self, digest: str) -> tuple[Version, ...]:
        with self._lock:
            found = [version for version in self._versions.values() if version.digest == digest]
        return tuple(sorted(found, key=lambda version: (version.created_at, version.name, version.number)))

    def list(self, name: str | None = None) -> tuple[Version, ...]:
        with self._lock:
            found = [version for version in self._versions.values() if name in (None, version.name)]
        return tuple(sorted(found, key=lambda version: (version.name, version.number)))

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
        with self._lock:
            version = self.get(name, number)
            pointing = tuple(alias for alias in self.aliases(name) if alias.number == number)
            subject = changes.subject(version)
            last = next((row for _, row in reversed(self._audit) if row.subject == subject), None)
            after = changes.moved(version, expected, to, reasons, pointing, last, take_down=take_down)
            now = self._clock()
            for alias in pointing:
                del self._aliases[alias.name, alias.alias]
                self._note(name, changes.taken_down(alias, who=who, why=why, now=now))
            self._versions[name, number] = after
            self._note(name, changes.moving(version, after, who=who, why=why, now=now))
            return after

    def alias(self, name: str, alias: str) -> Alias:
        if (found := self._aliases.get((name, alias))) is None:
            raise changes.no_alias(name, alias)
        return found

    def aliases(self, name: str | None = None) -> tuple[Alias, ...]:
        with self._lock:
            found = [alias for alias in self._aliases.values() if name in (None, alias.name)]
        return tuple(sorted(found, key=lambda alias: (alias.name, alias.alias)))

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
        with self._lock:
            held = self._aliases.get((name, alias))
            move = changes.Pointing(name=name, alias=alias, expected=expected, to=to, on_unavailable=on_unavailable)
            after = changes.pointed(held, self.get(name, to), move, who=who, why=why, now=self._clock())
            self._aliases[name, alias] = after
            self._note(name, changes.pointing(held, after))
            return after

    def audit(self, name: str | None = None, limit: int = 100) -> tuple[Audit, ...]:
        with self._lock:
            found = [row for owner, row in reversed(self._audit) if name in (None, owner)]
        return tuple(found[:limit])

    def _note(self, name: str, row: Audit) -> None:
        self._audit.append((name, row))
        self.revision += 1
