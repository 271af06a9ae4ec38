"""Answers that a caller asked to be stored, as OpenAI's SDK lists, relabels and deletes them.

The record stays as it came: what the caller changes lies beside it, and goes with its month. A deleted answer is no
longer listed; whether its record is kept for the loop is the key's policy, and had nothing to do with `store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from monitoring.records.errors import NotFound
from monitoring.records.events import Inference


class Stored(Protocol):
    """The callers' side: stored chat completions of one tenant. Raises StoreAway; NotFound where the tenant has none of
    that name, whether another has it or not."""

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
        """The first `limit` that match after the completion `after`, which may have been deleted since."""

    def stored_one(self, completion_id: str, tenant: str) -> Inference:
        """One of them, with the metadata that it has now."""

    def relabel(self, completion_id: str, tenant: str, metadata: Mapping[str, str]) -> Inference:
        """Put other metadata in the place of what it has."""

    def unstore(self, completion_id: str, tenant: str) -> None:
        """It is stored no more, for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a caller changed of one stored answer since it came."""

    metadata: Mapping[str, str] | None = None
    removed: bool = False


def storable(event: Inference, tenant: str) -> bool:
    """Whether this is an answer that the SDK's stored completions may show to the tenant."""
    return event.stored and event.endpoint == "chat" and event.completion_id != "" and event.tenant == tenant


def changed(event: Inference, change: Change | None) -> Inference:
    """The answer as its caller last said it."""
    return event if change is None or change.metadata is None else replace(event, metadata=change.metadata)


def listed(
    events: Iterable[Inference],
    changes: Mapping[str, Change],
    *,
    model: str | None,
    metadata: Mapping[str, str] | None,
    after: str | None,
    limit: int,
    newest_first: bool,
) -> list[Inference]:
    """What `Stored.stored` says of a tenant's answers, oldest first, in memory."""
    rows = sorted(events, key=lambda event: event.id, reverse=newest_first)
    if after is not None:
        rows = rows[_place(rows, after) + 1 :]
    shown = [changed(each, changes.get(each.id)) for each in rows if not changes.get(each.id, Change()).removed]
    return [
        each
        for each in shown
        if model in (None, each.model) and all(each.metadata.get(k) == v for k, v in (metadata or {}).items())
    ][:limit]


def _place(rows: Sequence[Inference], completion_id: str) -> int:
    for place in sorted(range(len(rows)), key=lambda at: rows[at].id, reverse=True):
        if rows[place].completion_id == completion_id:
            return place
    raise NotFound(completion_id)


def clean(text: str) -> str:
    """PostgreSQL cannot hold NUL, nor be asked for it; records have this in its place."""
    return text.replace("\0", "\ufffd")
