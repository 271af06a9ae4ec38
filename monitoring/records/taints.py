"""Which answers must not be trusted: those that a replica worked on while its cache may have held another's NaN. Pure.

Marks are spans of time on a replica, kept beside the rows and laid over them whenever they are read. So an answer that
is stored after its mark is marked as well, and no row is ever rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from monitoring.records.events import Inference


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """`since` and `until` are unix seconds; `until` is when the replica had nothing to do any more."""

    replica: str
    since: float
    until: float
    why: str


def marked(event: Inference, taints: Iterable[Taint]) -> Inference:
    """The event, saying why its answer must not be trusted if its replica worked on it within a mark."""
    if not event.replica:
        return event
    ended_at = event.started_at + event.total_ms / 1e3
    for taint in taints:
        if taint.replica == event.replica and ended_at >= taint.since and event.started_at < taint.until:
            return replace(event, tainted=taint.why)
    return event
