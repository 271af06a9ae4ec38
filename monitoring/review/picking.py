"""Which records people should look at, and why, in words. Pure: records and feedback in, picks out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from monitoring.records.events import Feedback, Inference
from monitoring.review.novelty import CHARS_MAX, novelty
from monitoring.review.values import By, Pick, Reason
from monitoring.review.words import words

#: What somebody does with an answer, and what that says of it.
_DEEDS = {"copied": 1, "regenerated": -1, "abandoned": -1}
_NOVEL_MIN = 0.3  #: nearer than this to an earlier prompt is the same question again
_SCALARS_MIN = 5  #: fewer values of one scalar have no middle worth speaking of


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A record that can be shown, without its bodies, so that thousands fit in memory; and each rater's last word."""

    record: Inference
    asked: str  # the beginning of the last thing the user said
    prompt: bytes  # digests: equal where the text is; that of an answer is empty where the answer is
    answer: bytes
    logprob: float = math.nan
    tokens: int = 0
    feedback: Sequence[Feedback] = ()


def candidate(record: Inference, feedback: Sequence[Feedback] = ()) -> Candidate | None:
    """None where there is nothing to show, or no id to send feedback for."""
    found = words(record)
    if found is None or not record.completion_id:
        return None
    return Candidate(
        record=replace(record, request=None, response=None),
        asked=found.asked[:CHARS_MAX],
        prompt=_digest(found.prompt),
        answer=_digest(found.answer) if found.answer else b"",
        logprob=found.logprob,
        tokens=found.tokens,
        feedback=feedback,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which records to look among. Empty fields match all; `adapter` is a name, or name:version."""

    model: str = ""
    adapter: str = ""
    arm: str = ""
    experiment: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    completions: tuple[str, ...] = ()

    def matches(self, record: Inference) -> bool:
        return (
            self.model in ("", record.model)
            and self.adapter in ("", record.adapter, record.adapter.partition(":")[0])
            and self.arm in ("", record.arm)
            and self.experiment in ("", record.experiment)
            and (not self.completions or record.completion_id in self.completions)
            and all(record.metadata.get(name) == value for name, value in self.metadata.items())
        )

    def __str__(self) -> str:
        asked = (("model", self.model), ("adapter", self.adapter), ("arm", self.arm), ("experiment", self.experiment))
        said = [f"{name} {value}" for name, value in asked if value]
        said += [f"metadata {name}={value}" for name, value in self.metadata.items()]
        said += [f"one of {len(self.completions)} answers that were named"] if self.completions else []
        return ", ".join(said) or "every record"


def picks(by: By, among: Sequence[Candidate], n: int, query: Query) -> list[Pick]:
    """The `n` that most deserve a look, the first most. `among` are in the order of their time."""
    found = {
        By.DISAGREEMENT: lambda: _disagreeing(among),
        By.NOVELTY: lambda: _novel(among),
        By.LIKELIHOOD: lambda: _unlikely(among),
        By.ALARM: lambda: _alarming(among),
        By.QUERY: lambda: _asked_for(among, query),
    }[by]()
    return sorted(found, key=lambda pick: (-pick.reason.score, pick.record))[:n]


def partners(picked: Sequence[Pick], among: Sequence[Candidate]) -> list[tuple[Pick, Candidate, Candidate]]:
    """For each pick the newest other answer to the same prompt that another adapter or arm gave: what can be compared.

    A pair comes once. Picks without such an answer are left out, and so are answers that say the very same.
    """
    by_prompt: dict[bytes, list[Candidate]] = {}
    for each in among:
        by_prompt.setdefault(each.prompt, []).append(each)
    by_id = {each.record.id: each for each in among}  # every pick is one of them
    found: list[tuple[Pick, Candidate, Candidate]] = []
    paired: set[str] = set()
    for pick in picked:
        one = by_id[pick.record]
        others = (each for each in reversed(by_prompt[one.prompt]) if _differ(one, each))
        other = next((each for each in others if each.record.id not in paired), None)
        if other is not None and pick.record not in paired:
            paired |= {pick.record, other.record.id}
            found.append((pick, one, other))
    return found


def _differ(one: Candidate, other: Candidate) -> bool:
    ours, theirs = one.record, other.record
    sources = (ours.digest, ours.adapter, ours.arm) != (theirs.digest, theirs.adapter, theirs.arm)
    told_apart = ours.completion_id != theirs.completion_id and one.answer != other.answer
    return sources and told_apart and bool(one.answer and other.answer)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _pick(of: Candidate, by: By, why: str, score: float) -> Pick:
    return Pick(record=of.record.id, reason=Reason(by=by, why=why, score=score))


def _disagreeing(among: Sequence[Candidate]) -> Iterable[Pick]:
    """People against people first, then one kind of word against another. The score is how evenly it is split."""
    middles = _middles(among)
    for each in among:
        values = [word.value for word in each.feedback if word.kind == "thumbs" and word.value is not None]
        thumbs = [1 if value > 0 else -1 for value in values]
        up, down = thumbs.count(1), thumbs.count(-1)
        if up and down:
            yield _pick(each, By.DISAGREEMENT, f"{up} thumbs up, {down} down", 1 + 2 * min(up, down) / len(thumbs))
            continue
        against = [said for sign, said in _other_words(each.feedback, middles) if thumbs and sign != thumbs[0]]
        if against:
            what = f"{len(thumbs)} thumbs {'up' if up else 'down'}, yet {', '.join(against)}"
            yield _pick(each, By.DISAGREEMENT, what, len(against) / (len(against) + len(thumbs)))


def _middles(among: Sequence[Candidate]) -> dict[str, float]:
    """The median of each scalar over all candidates: what is good on a scale that nobody declared."""
    values: dict[str, list[float]] = {}
    for each in among:
        for word in each.feedback:
            if word.kind == "scalar" and word.value is not None:
                values.setdefault(word.name, []).append(word.value)
    return {name: median(found) for name, found in values.items() if len(found) >= _SCALARS_MIN}


def _other_words(said: Sequence[Feedback], middles: Mapping[str, float]) -> Iterable[tuple[int, str]]:
    """What was said otherwise than by thumbs: good (1) or bad (-1), and in words."""
    for word in said:
        if word.kind == "implicit" and word.name in _DEEDS:
            yield _DEEDS[word.name], word.name
        elif word.kind == "scalar" and word.value is not None and word.name in middles:
            middle = middles[word.name]
            if word.value != middle:
                sign = 1 if word.value > middle else -1
                yield sign, f"{word.name} {word.value:g} {'above' if sign > 0 else 'below'} the median {middle:g}"


def _novel(among: Sequence[Candidate]) -> Iterable[Pick]:
    for each, found in zip(among, novelty([each.asked for each in among]), strict=True):
        if found.before and found.distance >= _NOVEL_MIN:
            nearest = f"the nearest of {found.before} earlier prompts is {found.distance:.2f} away"
            why = f"{nearest} (0 the same, 1 nothing shared)"
            yield _pick(each, By.NOVELTY, why, found.distance)


def _unlikely(among: Sequence[Candidate]) -> Iterable[Pick]:
    scored = [each for each in among if not math.isnan(each.logprob)]
    middle = median(each.logprob for each in scored) if scored else 0.0
    for each in scored:
        if each.logprob < middle or len(scored) == 1:
            why = (
                f"mean logprob {each.logprob:.2f} over {each.tokens} tokens; "
                f"the median of {len(scored)} answers with logprobs is {middle:.2f}"
            )
            yield _pick(each, By.LIKELIHOOD, why, -each.logprob)


def _alarming(among: Sequence[Candidate]) -> Iterable[Pick]:
    for each in among:
        record = each.record
        alarms = (
            (4.0, f"tainted: {record.tainted}" if record.tainted else ""),
            (3.0, "a content filter ended it" if record.finish == "content_filter" else ""),
            (2.0, "broke off after its first byte" if record.incomplete else ""),
            (1.0, f"error {record.error}" if record.error not in ("", "client_left") else ""),
        )
        rung = [(score, why) for score, why in alarms if why]
        if rung:
            yield _pick(each, By.ALARM, "; ".join(why for _, why in rung), sum(score for score, _ in rung))


def _asked_for(among: Sequence[Candidate], query: Query) -> Iterable[Pick]:
    """The newest first."""
    why = f"asked for: {query}"
    return [_pick(each, By.QUERY, why, float(place)) for place, each in enumerate(among)]
