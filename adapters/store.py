"""Rows of versions, aliases, evidence and what was done to them: the Protocol, and the twin in memory.

Policy is in registry.py. Every change is one transaction that also writes audit rows and moves the revision once. Two
rules are kept inside it, because only a transaction can: an alias points at verified versions only, and what one points
at stays verified.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from adapters import changes, trail
from adapters.errors import Reason
from adapters.evidence import KEPT_MAX, kept
from adapters.lifecycle import CURRENT, State
from adapters.values import Alias, Audit, Draft, Evidence, Kind, OnUnavailable, Version

__all__ = ["Alias", "Audit", "Draft", "Evidence", "MemoryStore", "OnUnavailable", "Store", "Version"]


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

    def list(self, name: str | None = None, *, states: Collection[State] | None = None) -> tuple[Version, ...]:
        """Every version of one name or of all, by name and number; `states` leaves out those in any other. Versions
        that are gone stay as rows for ever, so what is read often should name the states that it needs."""
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
        labels: Sequence[str] = (),
        evidence: Sequence[Evidence] = (),
        take_down: bool = False,
    ) -> Version:
        """Compare-and-set on the state. IllegalMove by the table; Conflict when the state is another, or when an alias
        points at a version that would stop being verified, unless `take_down` removes such aliases with it. `labels`
        are added; `evidence` is kept in the same step."""
        ...

    def admit(self, name: str, number: int, *, who: str, why: str, live_allowed: bool = True) -> Version:
        """Checked or probed → verified, and in the same step `live` points at it where the name has none and it is
        allowed, else `candidate` does. A verified version is returned as it is. IllegalMove from any other state."""
        ...

    def withdraw(self, name: str, number: int, *, who: str, why: str, reasons: Sequence[Reason]) -> Version:
        """To rejected, from verified or before, and in the same step each alias that points at it goes to the verified
        version where it pointed before, or is removed. A rejected version is returned as it is; IllegalMove for a
        retired or deleted one."""
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
        override: Evidence | None = None,
    ) -> Alias:
        """Compare-and-set on the version an alias points at; `expected=None` makes a new alias. NotFound for an unknown
        version, IllegalMove for one that is not verified, Conflict saying who moved the alias and when. `override` is
        kept in the same step, with an audit row of its own."""
        ...

    def pin(self, name: str, alias: str, pinned: bool, *, who: str, why: str) -> Alias:
        """Give the alias a slot of its own in every engine, or take it back. NotFound."""
        ...

    def attest(self, evidence: Evidence) -> None:
        """Keep what was seen of a version, the newest few of each kind and subject. Never moves the revision.
        NotFound."""
        ...

    def evidence(self, name: str, number: int, kind: Kind | None = None) -> tuple[Evidence, ...]:
        """What was seen of a version, oldest first."""
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
        self._evidence: list[Evidence] = []
        self._audit: list[tuple[str, Audit]] = []

    def insert(self, draft: Draft) -> Version:
        with self._lock:
            known = self.list(draft.name)
            same = [version for version in known if version.digest == draft.digest and version.state in CURRENT]
            if same:
                return same[0]
            number = known[-1].number + 1 if known else 1
            return self._apply(changes.inserted(draft, number, now=self._clock()))

    def get(self, name: str, number: int) -> Version:
        if (found := self._versions.get((name, number))) is None:
            raise changes.no_version(name, number)
        return found

    def by_digest(self, digest: str) -> tuple[Version, ...]:
        with self._lock:
            found = [version for version in self._versions.values() if version.digest == digest]
        return tuple(sorted(found, key=lambda version: (version.created_at, version.name, version.number)))

    def list(self, name: str | None = None, *, states: Collection[State] | None = None) -> tuple[Version, ...]:
        with self._lock:
            found = [version for version in self._versions.values() if name in (None, version.name)]
        if states is not None:
            found = [version for version in found if version.state in states]
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
        labels: Sequence[str] = (),
        evidence: Sequence[Evidence] = (),
        take_down: bool = False,
    ) -> Version:
        wish = changes.Moving(expected=expected, to=to, reasons=reasons, labels=labels, take_down=take_down)
        with self._lock:
            version = self.get(name, number)
            pointing = tuple(alias for alias in self.aliases(name) if alias.number == number)
            after = self._apply(changes.moved(version, wish, pointing, self._last(version), self._by(who, why)))
            self._evidence += map(kept, evidence)
            return after

    def admit(self, name: str, number: int, *, who: str, why: str, live_allowed: bool = True) -> Version:
        with self._lock:
            version, by = self.get(name, number), self._by(who, why)
            last = self._last(version)
            return self._apply(changes.admitted(version, self.aliases(name), last, by, live_allowed=live_allowed))

    def withdraw(self, name: str, number: int, *, who: str, why: str, reasons: Sequence[Reason]) -> Version:
        with self._lock:
            version, by = self.get(name, number), self._by(who, why)
            pointing = tuple(alias for alias in self.aliases(name) if alias.number == number)
            servable = frozenset(found.number for found in self.list(name) if found.state is State.VERIFIED)

            def earlier(alias: Alias) -> int | None:
                return changes.earlier(self._rows(f"{alias.name}@{alias.alias}"), servable, number)

            return self._apply(changes.withdrawn(version, reasons, pointing, earlier, self._last(version), by))

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
        override: Evidence | None = None,
    ) -> Alias:
        wish = changes.Pointing(name=name, alias=alias, expected=expected, to=to, on_unavailable=on_unavailable)
        with self._lock:
            held = self._aliases.get((name, alias))
            by = self._by(who, why)
            self._apply(changes.pointed(held, self.get(name, to), wish, by, override=override))
            self._evidence += [kept(override)] if override else []
            return self._aliases[name, alias]

    def pin(self, name: str, alias: str, pinned: bool, *, who: str, why: str) -> Alias:
        with self._lock:
            held = self.alias(name, alias)
            self._apply(changes.pinned(held, self.get(name, held.number), pinned, self._by(who, why)))
            return self._aliases[name, alias]

    def attest(self, evidence: Evidence) -> None:
        with self._lock:
            self.get(evidence.name, evidence.number)
            self._evidence.append(kept(evidence))
            alike = [found for found in self._evidence if _topic(found) == _topic(evidence)]
            if len(alike) > KEPT_MAX:
                self._evidence.remove(alike[0])

    def evidence(self, name: str, number: int, kind: Kind | None = None) -> tuple[Evidence, ...]:
        with self._lock:
            ours = [found for found in self._evidence if (found.name, found.number) == (name, number)]
        return tuple(found for found in ours if kind in (None, found.kind))

    def audit(self, name: str | None = None, limit: int = 100) -> tuple[Audit, ...]:
        with self._lock:
            found = [row for owner, row in reversed(self._audit) if name in (None, owner)]
        return tuple(found[:limit])

    def _apply(self, change: changes.Change) -> Version:
        version = change.version
        if change.rows:
            self._versions[version.name, version.number] = version
            for alias in change.gone:
                del self._aliases[alias.name, alias.alias]
            for alias in change.aliases:
                self._aliases[alias.name, alias.alias] = alias
            self._audit += [(version.name, row) for row in change.rows]
            self.revision += 1
        return version

    def _by(self, who: str, why: str) -> trail.By:
        return trail.By(who=who, why=why, at=self._clock())

    def _rows(self, subject: str) -> tuple[Audit, ...]:
        return tuple(row for _, row in reversed(self._audit) if row.subject == subject)

    def _last(self, version: Version) -> changes.Last:
        return lambda: next(iter(self._rows(trail.subject(version))), None)


def _topic(evidence: Evidence) -> tuple[str, int, str, str]:
    return evidence.name, evidence.number, evidence.kind, evidence.subject
