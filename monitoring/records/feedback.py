"""Which of all that was said counts, and what waits for its answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from monitoring.records.events import Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """Feedback whose target is no answer of its tenant: still waiting for it, and given up just now."""

    waiting: int
    expired: int


def latest(said: Iterable[Feedback]) -> list[Feedback]:
    """The last word of each seat, in the order of their ids."""
    last: dict[tuple[str, ...], Feedback] = {}
    for each in said:
        held = last.get(each.seat)
        if held is None or (held.at, held.id) < (each.at, each.id):
            last[each.seat] = each
    return sorted(last.values(), key=lambda each: each.id)
