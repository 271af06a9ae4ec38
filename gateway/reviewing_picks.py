"""Which records become review tasks: the newest are read, and the pure rules of monitoring/review choose among them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gateway.reviewing import Desk
from monitoring.records.events import Feedback, Inference, uuid7
from monitoring.records.feedback import latest
from monitoring.review.errors import BadPick
from monitoring.review.picking import Candidate, Query, candidate, partners, picks
from monitoring.review.values import By, Kind, Pick, Task

#: The newest records that one pick looks at, and the words said of them.
POOL_MAX = 5000
FEEDBACK_MAX = 50_000
_PAGE = 100
_FEEDBACK_PAGE = 1000
_SPAN_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to pick: the `n` that most deserve a look, of those that match; `since` and `until` are unix seconds."""

    by: By
    query: Query = field(default_factory=Query)
    n: int = 20
    since: float
    until: float
    compare: bool = False
    overlap: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """The new tasks, or with a dry run those there would be, of `found` that deserve a look: the others have a task
    already, or were not asked for. `hidden` cannot be shown: their keys' policy keeps no bodies, or their client never
    got an id."""

    tasks: Sequence[Task]
    looked_at: int
    matching: int
    hidden: int
    found: int


def pick(desk: Desk, tenant: str, wish: Wish, *, who: str, now: float, dry_run: bool = False) -> Picked:
    """Make tasks for what deserves a look. Raises BadPick, NotFound."""
    if not 0 < wish.n <= 1000 or not 0 < wish.overlap <= 100 or not wish.since < wish.until:
        raise BadPick("1 to 1000 picks, 1 to 100 reviewers each, and a beginning before the end are needed.")
    records = _named(desk, tenant, wish.query) if wish.query.completions else _newest(desk, tenant, wish)
    pool: deque[Candidate] = deque(maxlen=POOL_MAX)
    looked_at = matching = hidden = 0
    for record in records:
        looked_at += 1
        wanted = wish.query.matches(record)
        matching += wanted
        if wanted or wish.compare:  # an answer may be compared with one that nobody asked for
            found = candidate(record)
            hidden += wanted and found is None
            if found is not None:
                pool.append(found)
    among = [each for each in pool if wish.query.matches(each.record)]
    if wish.by is By.DISAGREEMENT:
        among = _with_feedback(desk, tenant, among)
    chosen = picks(wish.by, among, len(among), wish.query)
    records_of = {each.record.id: each.record for each in among}
    groups: list[tuple[Pick, tuple[Inference, ...]]]
    if wish.compare:
        groups = [(pick, (one.record, other.record)) for pick, one, other in partners(chosen, pool)]
    else:
        groups = [(pick, (records_of[pick.record],)) for pick in chosen]
    tasks = [
        Task(
            id=uuid7(),
            tenant=tenant,
            kind=Kind.COMPARE if wish.compare else Kind.LABEL,
            records=tuple(record.id for record in group),
            completions=tuple(record.completion_id for record in group),
            reason=pick.reason,
            overlap=wish.overlap,
            picked_at=now,
            picked_by=who,
        )
        for pick, group in groups
    ]
    added = desk.store.add(tasks, most=wish.n, keep=not dry_run)
    return Picked(tasks=added, looked_at=looked_at, matching=matching, hidden=hidden, found=len(tasks))


def _named(desk: Desk, tenant: str, query: Query) -> Iterator[Inference]:
    found = [desk.records.by_completion(completion, tenant) for completion in dict.fromkeys(query.completions)]
    return iter(sorted(found, key=lambda record: record.id))


def _newest(desk: Desk, tenant: str, wish: Wish) -> Iterator[Inference]:
    """The newest, oldest first: at least POOL_MAX where there are so many, and a few times that at most. Records are
    read from their oldest on, so how far to go back is found by counting."""
    span = _SPAN_S

    def count() -> int:
        since = max(wish.since, wish.until - span)
        return desk.records.count(tenant=tenant, since=since, until=wish.until)

    while wish.until - span > wish.since and count() < POOL_MAX:
        span *= 4
    while span > 1 and count() > 4 * POOL_MAX:
        span /= 2
    since = max(wish.since, wish.until - span)
    after: str | None = None
    while page := desk.records.query(tenant=tenant, since=since, until=wish.until, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def _with_feedback(desk: Desk, tenant: str, among: Sequence[Candidate]) -> list[Candidate]:
    """Each with what was said of it. Only what was said since the oldest of them was served can be about one."""
    said: dict[str, list[Feedback]] = {each.record.completion_id: [] for each in among}
    since = min((each.record.started_at for each in among), default=math.inf)
    after: str | None = None
    read = 0
    while among and read < FEEDBACK_MAX:
        page = desk.records.feedback(tenant=tenant, since=since, after=after, limit=_FEEDBACK_PAGE)
        for word in page:
            if word.target in said:
                said[word.target].append(word)
        read += len(page)
        if len(page) < _FEEDBACK_PAGE:
            break
        after = page[-1].id
    return [replace(each, feedback=latest(said[each.record.completion_id])) for each in among]
