"""What the house needs from a store of records, and the twin that keeps them in memory."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Protocol

from monitoring.records.codes import Page, chunks, tags_code, unpacked
from monitoring.records.errors import NotFound
from monitoring.records.events import Event, Exposure, Feedback, Inference
from monitoring.records.feedback import Orphans, latest
from monitoring.records.joins import Trial
from monitoring.records.periods import expired, least_id, period_at, period_of
from monitoring.records.stored import Change, Stored, changed, clean, listed, storable
from monitoring.records.taints import Taint, marked


class Intake(Protocol):
    """The ingester's side. Raises StoreAway; BadRecord when one of the events can never be stored."""

    def ingest(self, file: str, offset: int, events: Sequence[Event]) -> None:
        """Store events (once, by id) and that `file` is done up to `offset`, together. An offset never moves back."""

    def offset(self, file: str) -> int:
        """How far a spool file is done, in bytes; 0 for one never seen."""

    def forget(self, file: str) -> None:
        """Drop the offset of a file that no longer exists."""


class Marks(Protocol):
    """The fleet's side: which answers must not be trusted. Raises StoreAway."""

    def taint(self, replica: str, since: float, until: float, why: str) -> None:
        """Mark what `replica` worked on in between, stored already or later; saying it twice changes nothing."""

    def taints(self) -> list[Taint]:
        """Every mark, oldest first; one goes with the month that it ends in."""


class Loop(Protocol):
    """The side of experiments and of learning: who met which arm, and what was said of the answers. Raises StoreAway.

    Feedback is its caller's tenant's, whatever its target: only the analysis joins the two, within one tenant, and so
    nothing here tells whether another tenant's answer exists.
    """

    def exposures(self, experiment: str, *, after: str | None = None, limit: int = 100) -> list[Exposure]:
        """The oldest `limit` exposures. The last one's id is the next page's `after`."""

    def trial(self, experiment: str) -> Trial:
        """All of an experiment, as columns: for `joins.joined`, then `sums.sums`."""

    def feedback(
        self,
        *,
        tenant: str | None = None,
        target: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
        history: bool = False,
    ) -> list[Feedback]:
        """The oldest `limit` words that match and count: of one seat the last, whichever were asked for; with
        `history` all. The last one's id is the next page's `after`."""

    def pending(self, *, tenant: str | None = None, limit: int = 100) -> list[Feedback]:
        """The oldest `limit` whose target is no answer, nor conversation, of their tenant so far."""

    def expire(self, now: float, keep_s: float) -> Orphans:
        """Drop what has waited for its answer for longer than `keep_s`; what has found one never goes this way."""


class Records(Intake, Marks, Loop, Stored, Protocol):
    """The readers' side. `since` and `until` are unix seconds, until exclusive, of the moment in the record's id.

    Whatever is read says in `tainted` whether its answer may be trusted, also what was stored before anybody knew.
    """

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
        self._taints: set[Taint] = set()
        self._exposures: dict[str, Exposure] = {}
        self._feedback: dict[str, Feedback] = {}
        self._pending: set[str] = set()
        self._changes: dict[str, Change] = {}

    def ingest(self, file: str, offset: int, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Exposure):
                self._exposures.setdefault(event.id, event)
            elif isinstance(event, Feedback):
                if event.id not in self._feedback:
                    self._feedback[event.id] = event
                    self._pending.add(event.id)
            elif event.id not in self._events:
                self._events[event.id] = event
                bisect.insort(self._ids, event.id)
        self._offsets[file] = max(offset, self.offset(file))

    def offset(self, file: str) -> int:
        return self._offsets.get(file, 0)

    def forget(self, file: str) -> None:
        self._offsets.pop(file, None)

    def get(self, record_id: str) -> Inference:
        try:
            return marked(self._events[record_id], self._taints)
        except KeyError:
            raise NotFound(record_id) from None

    def by_completion(self, completion_id: str, tenant: str) -> Inference:
        for record_id in reversed(self._ids):
            event = self._events[record_id]
            if event.completion_id == completion_id and event.tenant == tenant:
                return marked(event, self._taints)
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
        kept = [e for e in found if tenant in (None, e.tenant) and digest in (None, e.digest)][:limit]
        return [marked(event, self._taints) for event in kept]

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
        gone = expired({period_of(each) for each in (*self._ids, *self._exposures, *self._feedback)}, before)
        self._ids = [record_id for record_id in self._ids if period_of(record_id) not in gone]
        self._events = {record_id: self._events[record_id] for record_id in self._ids}
        self._exposures = {k: each for k, each in self._exposures.items() if period_of(k) not in gone}
        self._feedback = {k: each for k, each in self._feedback.items() if period_of(k) not in gone}
        self._pending &= self._feedback.keys()
        self._changes = {k: each for k, each in self._changes.items() if period_of(k) not in gone}
        self._taints = {taint for taint in self._taints if not gone or period_at(taint.until) > gone[-1]}
        return gone

    def taint(self, replica: str, since: float, until: float, why: str) -> None:
        self._taints.add(Taint(replica=replica, since=since, until=until, why=why))

    def taints(self) -> list[Taint]:
        return sorted(self._taints, key=lambda taint: (taint.since, taint.replica, taint.until, taint.why))

    def exposures(self, experiment: str, *, after: str | None = None, limit: int = 100) -> list[Exposure]:
        found = sorted(k for k, each in self._exposures.items() if each.experiment == experiment and k > (after or ""))
        return [self._exposures[k] for k in found[:limit]]

    def trial(self, experiment: str) -> Trial:
        shown = self.exposures(experiment, limit=len(self._exposures))
        tenants = {each.tenant for each in shown}
        came = [self._events[k] for k in self._ids if self._events[k].experiment == experiment]
        said = [self._feedback[k] for k in sorted(self._feedback) if self._feedback[k].tenant in tenants]
        return Trial(
            exposures=unpacked(Page.EXPOSURES, [chunk.packed for chunk in chunks(shown)]),
            outcomes=unpacked(Page.OUTCOMES, [chunk.packed for chunk in chunks(came)]),
            feedback=unpacked(Page.FEEDBACK, [chunk.packed for chunk in chunks(said)]),
            tags={tags_code(each): dict(each.tags) for each in shown if each.tags},
        )

    def feedback(
        self,
        *,
        tenant: str | None = None,
        target: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
        history: bool = False,
    ) -> list[Feedback]:
        first, end = least_id(since or 0.0), "g" if until is None else least_id(until)
        said = sorted(self._feedback.values(), key=lambda each: each.id)
        return [
            each
            for each in (said if history else latest(said))
            if tenant in (None, each.tenant)
            and target in (None, each.target)
            and first <= each.id < end
            and each.id > (after or "")
        ][:limit]

    def pending(self, *, tenant: str | None = None, limit: int = 100) -> list[Feedback]:
        said = [self._feedback[k] for k in sorted(self._pending)]
        return [each for each in said if tenant in (None, each.tenant) and not self._seen(each)][:limit]

    def expire(self, now: float, keep_s: float) -> Orphans:
        waiting = self.pending(limit=len(self._pending))
        gone = [each for each in waiting if each.id < least_id(now - keep_s)]
        for each in gone:
            del self._feedback[each.id]
        self._pending = {each.id for each in waiting} - {each.id for each in gone}
        return Orphans(waiting=len(self._pending), expired=len(gone))

    def _seen(self, said: Feedback) -> bool:
        name = "completion_id" if said.target_kind == "completion" else "conversation"
        return any(each.tenant == said.tenant and getattr(each, name) == said.target for each in self._events.values())

    def stored(
        self,
        tenant: str,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = False,
    ) -> list[Inference]:
        theirs = [marked(each, self._taints) for each in self._events.values() if storable(each, tenant)]
        return listed(
            theirs,
            self._changes,
            model=model,
            metadata=metadata,
            after=after,
            limit=limit,
            newest_first=newest_first,
        )

    def stored_one(self, completion_id: str, tenant: str) -> Inference:
        for record_id in reversed(self._ids):
            event, change = self._events[record_id], self._changes.get(record_id, Change())
            if event.completion_id == completion_id and storable(event, tenant) and not change.removed:
                return marked(changed(event, change), self._taints)
        raise NotFound(completion_id)

    def relabel(self, completion_id: str, tenant: str, metadata: Mapping[str, str]) -> Inference:
        self._changes[self.stored_one(completion_id, tenant).id] = Change(
            metadata={clean(k): clean(v) for k, v in metadata.items()}
        )
        return self.stored_one(completion_id, tenant)

    def unstore(self, completion_id: str, tenant: str) -> None:
        self._changes[self.stored_one(completion_id, tenant).id] = Change(removed=True)
