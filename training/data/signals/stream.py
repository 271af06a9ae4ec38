"""The walk through the records: feedback first, to disk; then page by page every record with what was said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monitoring.records.codes import code
from monitoring.records.errors import NotFound
from monitoring.records.events import Exposure, Feedback, Inference
from training.data.reasons import Reason, Tally
from training.data.rules import Rules
from training.data.signals.candidates import Find, Outcome, outcome, packed, paired, unpacked
from training.data.signals.words import Scored, Words
from training.data.values import Candidate, Progress

PAGE = 500
#: Of the scored answers to one question, these many from either end are paired.
_ENDS = 100


class Source(Protocol):
    """What a build reads: `monitoring.records.store.Records` is one."""

    def query(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Inference]: ...

    def feedback(
        self,
        *,
        tenant: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
        history: bool = False,
    ) -> list[Feedback]: ...

    def by_completion(self, completion_id: str, tenant: str) -> Inference: ...

    def exposures(self, experiment: str, *, after: str | None = None, limit: int = 100) -> list[Exposure]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which answers, unix seconds, `until` exclusive. What was said of them counts whenever it came."""

    since: float | None = None
    until: float | None = None


@dataclass(slots=True)
class Left:
    """What came to nothing, and how much there was. `records` and `words` are counted apart."""

    records: Tally = field(default_factory=Tally)
    words: Tally = field(default_factory=Tally)
    seen_records: int = 0
    seen_words: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)


class Barred:
    """Who must not be learnt from: opted-out users, and units that running experiments evaluate. 8 bytes each."""

    def __init__(self, opted_out: Iterable[str] = (), exposures: Iterable[Exposure] = (), running: Sequence[str] = ()):
        self._users = _sorted(code(user) for user in opted_out)
        self._units = _sorted(code(each.tenant, each.unit_kind, each.unit) for each in exposures)
        self._running = frozenset(running)

    def why(self, record: Inference, said: Sequence[Feedback]) -> Reason | None:
        if self._users.size and any(
            name and _among(code(name), self._users) for name in (record.user, *(word.rater for word in said))
        ):
            return Reason.OPTED_OUT
        if record.experiment and record.experiment in self._running:
            return Reason.IN_EXPERIMENT
        if self._units.size:
            units = (
                ("user", record.user),
                ("conversation", record.conversation),
                ("key", record.key_id),
                ("request", record.request_id),
            )
            if any(name and _among(code(record.tenant, kind, name), self._units) for kind, name in units):
                return Reason.IN_EXPERIMENT
        return None


def evaluated(source: Source, experiments: Sequence[str]) -> Iterator[Exposure]:
    """Every exposure of these experiments."""
    for experiment in experiments:
        after: str | None = None
        while page := source.exposures(experiment, after=after, limit=PAGE):
            yield from page
            after = page[-1].id


def candidates(
    source: Source, rules: Rules, window: Window, barred: Barred, folder: Path, left: Left, said: Progress
) -> Iterator[Candidate]:
    """Every candidate of these records, in their order; pairs across records come last. Memory stays flat."""
    words = Words(folder)
    try:
        _gather(source, rules, window, words, left, said)
        waiting = used = 0
        for record, about in _records(source, rules, window, words, left, said):
            why = barred.why(record, about)
            found = (
                Outcome(why=why)
                if why
                else outcome(record, about, rules, centred=words.centred, find=_finder(source), lost=left.words)
            )
            if found.why is not None:
                left.records.add(found.why, record.id)
            for each in found.waiting:
                words.keep(each.question, each.score, packed(each.candidate))
                waiting += 1
            yield from found.rows
        if waiting:
            for answers in words.questions(_ENDS):
                for pair in _within(answers, rules):
                    used += 2
                    yield pair
            if waiting > used:
                left.records.add(Reason.NO_PARTNER, count=waiting - used)
    finally:
        words.close()


def _gather(source: Source, rules: Rules, window: Window, words: Words, left: Left, said: Progress) -> None:
    after: str | None = None
    tenant = rules.tenant or None
    while page := source.feedback(tenant=tenant, since=window.since, after=after, limit=PAGE, history=True):
        words.add(page)
        left.seen_words += len(page)
        for word in page:
            left.by_kind[word.kind] = left.by_kind.get(word.kind, 0) + 1
        after = page[-1].id
        said("feedback", left.seen_words, None)
    words.sealed()


def _records(
    source: Source, rules: Rules, window: Window, words: Words, left: Left, said: Progress
) -> Iterator[tuple[Inference, list[Feedback]]]:
    after: str | None = None
    while page := source.query(
        tenant=rules.tenant or None,
        digest=rules.policy or None,
        since=window.since,
        until=window.until,
        after=after,
        limit=PAGE,
    ):
        after = page[-1].id
        asked = [each for each in page if not rules.routes or each.model in rules.routes]
        left.seen_records += len(asked)
        yield from zip(asked, words.about(asked), strict=True)
        said("records", left.seen_records, None)


def _finder(source: Source) -> Find:
    def find(completion_id: str, tenant: str) -> Inference | None:
        try:
            return source.by_completion(completion_id, tenant)
        except NotFound:
            return None

    return find


def _within(answers: Sequence[Scored], rules: Rules) -> Iterator[Candidate]:
    """The best with the worst, the second best with the second worst, as long as they are far enough apart."""
    for place in range(min(rules.pairs_per_prompt, len(answers) // 2)):
        best, worst = answers[place], answers[-1 - place]
        gap = best.score - worst.score
        if gap < rules.gap_min:
            return
        one, other = unpacked(best.body), unpacked(worst.body)
        if one.answer.strip() != other.answer.strip():
            yield paired(one, other, gap)


def _sorted(codes: Iterable[int]) -> NDArray[np.int64]:
    return np.unique(np.fromiter(codes, np.int64))


def _among(wanted: int, held: NDArray[np.int64]) -> bool:
    at = int(np.searchsorted(held, wanted))
    return at < held.size and int(held[at]) == wanted
