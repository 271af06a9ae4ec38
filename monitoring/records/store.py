"""What the house needs from a store of records, and the twin that keeps them in memory."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Protocol

from monitoring.records.errors import NotFound
from monitoring.records.events import Inference
from monitoring.records.periods import expired, least_id, period_of


class Intake(Protocol):
    """The ingester's side. Raises StoreAway; BadRecord when one of the events can never be stored."""

    def ingest(self, file: str, offset: int, events: Sequence[Inference]) -> None:
        """Store events (once, by id) and that `file` is done up to `offset`, together. An offset never moves back."""

    def offset(self, file: str) -> int:
        """How far a spool file is done, in bytes; 0 for one never seen."""

    def forget(self, file: str) -> None:
        """Drop the offset of a file that no longer exists."""


class Records(Intake, Protocol):
    """The readers' side. `since` and `until` are unix seconds, until exclusive, of the moment in the record's id."""

    def get(self, record_id: str) -> Inference:
        """Raises NotFound."""

    def by_completion(self, completion_id: str, tenant: str) -> Inference:
        """The newest record of an answer, within one tenant. Raises NotFound."""

    def query(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Inference]:
        """The oldest `limit` records that match, newest last. The last one's id is the next page's `after`."""

    def count(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> int:
        """How many records match."""

    def drop_before(self, before: float) -> list[str]:
        """Drop every period (`2026-11`) that lies wholly before a unix time; returns them, oldest first."""


class MemoryRecords:
    """Records in memory: for tests, and for looking at what a run recorded."""

    def __init__(self) -> None:
        self._events: dict[str, Inference] = {}
        self._ids: list[str] = []
        self._offsets: dict[str, int] = {}

    def ingest(self, file: str, offset: int, events: Sequence[Inference]) -> None:
        for event in events:
            if event.id not in self._events:
                self._events[event.id] = event
                bisect.insort(self._ids, event.id)
        self._offsets[file] = max(offset, self.offset(file))

    def offset(self, file: str) -> int:
        return self._offsets.get(file, 0)

    def forget(self, file: str) -> None:
        self._offsets.pop(file, None)

    def get(self, record_id: str) -> Inference:
        try:
            return self._events[record_id]
        except KeyError:
            raise NotFound(record_id) from None

    def by_completion(self, completion_id: str, tenant: str) -> Inference:
        for record_id in reversed(self._ids):
            event = self._events[record_id]
            if event.completion_id == completion_id and event.tenant == tenant:
                return event
        raise NotFound(completion_id)

    def query(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Inference]:
        start = 0 if since is None else bisect.bisect_left(self._ids, least_id(since))
        start = start if after is None else max(start, bisect.bisect_right(self._ids, after))
        end = len(self._ids) if until is None else bisect.bisect_left(self._ids, least_id(until))
        found = (self._events[record_id] for record_id in self._ids[start:end])
        return [e for e in found if tenant in (None, e.tenant) and digest in (None, e.digest)][:limit]

    def count(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> int:
        return len(self.query(tenant=tenant, digest=digest, since=since, until=until, limit=len(self._ids)))

    def drop_before(self, before: float) -> list[str]:
        gone = expired({period_of(record_id) for record_id in self._ids}, before)
        self._ids = [record_id for record_id in self._ids if period_of(record_id) not in gone]
        self._events = {record_id: self._events[record_id] for record_id in self._ids}
        return gone
