"""From one record and what was said of it to candidates for rows of one kind; or why there is none. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import orjson

from monitoring.records.codes import code
from monitoring.records.events import Feedback, Inference
from training.data.reasons import Reason, Tally
from training.data.rules import Rules
from training.data.signals.answers import Exchange, exchange, unfit
from training.data.signals.verdicts import Centred, Edit, Liked, Preferred, Verdict, by_score, verdict
from training.data.values import PAIRED, Candidate, Message

#: The record of an answer by completion id and tenant, where there is one.
Find = Callable[[str, str], Inference | None]
#: Comparing two texts takes time that grows with their product.
_COMPARED_MAX = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An answer with a score, until another answer to the same question comes."""

    question: int
    score: float
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`why` says why a record gave nothing at all."""

    rows: tuple[Candidate, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    why: Reason | None = None


def outcome(
    record: Inference, said: Sequence[Feedback], rules: Rules, *, centred: Centred, find: Find, lost: Tally
) -> Outcome:
    """All that follows from one record for this kind of dataset. `lost` counts words that came to nothing."""
    if not said and not (rules.kind == "rl" and rules.unrated_too):
        return Outcome(why=Reason.NO_FEEDBACK)
    why = unfit(record)
    if why is not None:
        return Outcome(why=why)
    read = exchange(record)
    if isinstance(read, Reason):
        return Outcome(why=read)
    found = verdict(said, rules, centred, lost)
    plain = _plain(record, read, said, rules)
    if rules.kind == "sft":
        return _sft(plain, found, rules)
    if rules.kind == "kto":
        return _kto(plain, found, rules)
    if rules.kind in PAIRED:
        return _pairs(plain, found, rules, find, lost)
    return _rl(plain, found, rules) if rules.kind == "rl" else Outcome(why=Reason.OTHER_FEEDBACK)


def paired(best: Candidate, worst: Candidate, gap: float) -> Candidate:
    """Two scored answers to one question as a pair."""
    return replace(
        best,
        rejected=worst.answer,
        score=gap,
        weight=min(best.weight, worst.weight),
        origin=best.origin,
        at=max(best.at, worst.at),
        inferences=tuple(dict.fromkeys((*best.inferences, *worst.inferences))),
        words=tuple(dict.fromkeys((*best.words, *worst.words))),
    )


def packed(candidate: Candidate) -> bytes:
    return orjson.dumps(candidate)


def unpacked(body: bytes) -> Candidate:
    document = orjson.loads(body)
    prompt = tuple(Message(**each) for each in document.pop("prompt"))
    inferences, words = tuple(document.pop("inferences")), tuple(document.pop("words"))
    return Candidate(prompt=prompt, inferences=inferences, words=words, **document)


def _plain(record: Inference, read: Exchange, said: Sequence[Feedback], rules: Rules) -> Candidate:
    """What every row from this record has in common, its answer included."""
    rater = next((word.rater for word in said if word.rater and word.rater_kind == "user"), "")
    return Candidate(
        kind=rules.kind,
        prompt=read.prompt,
        answer=read.answer,
        origin="request",
        at=record.started_at,
        tenant=record.tenant,
        owner=record.user or rater or record.conversation,
        route=record.model,
        policy=record.digest or record.base_digest,
        adapter=record.adapter,
        arm=record.arm,
        experiment=record.experiment,
        inferences=(record.id,),
    )


def _sft(plain: Candidate, found: Verdict, rules: Rules) -> Outcome:
    if found.edit is not None:
        if _same(found.edit.text, plain.answer):
            return Outcome(why=Reason.NO_CHANGE)
        return Outcome(rows=(_edited(plain, found.edit),))
    liked = found.liked or (by_score(found.scores, rules) if found.scores else None)
    if rules.likes_too and isinstance(liked, Liked) and liked.yes:
        return Outcome(rows=(replace(plain, weight=liked.weight, words=liked.words, origin="thumbs"),))
    return Outcome(why=found.why or Reason.OTHER_FEEDBACK)


def _kto(plain: Candidate, found: Verdict, rules: Rules) -> Outcome:
    """A thumb, or a score for one; and a correction is an answer that is liked."""
    rows = []
    liked = found.liked or (by_score(found.scores, rules) if found.scores else found.why)
    if isinstance(liked, Liked):
        origin = "thumbs" if found.liked else "stars"
        rows.append(replace(plain, label=liked.yes, weight=liked.weight, words=liked.words, origin=origin))
    if found.edit is not None and not _same(found.edit.text, plain.answer):
        rows.append(replace(_edited(plain, found.edit), label=True))
    if rows:
        return Outcome(rows=tuple(rows))
    return Outcome(why=liked if isinstance(liked, Reason) else Reason.OTHER_FEEDBACK)


def _pairs(plain: Candidate, found: Verdict, rules: Rules, find: Find, lost: Tally) -> Outcome:
    rows: list[Candidate] = []
    why: Reason | None = found.why
    if found.edit is not None:
        pair = _edit_pair(plain, found.edit, rules)
        if isinstance(pair, Reason):
            why = pair
        else:
            rows.append(pair)
    for choice in found.preferred:
        preferred = _preferred(plain, choice, find)
        if isinstance(preferred, Reason):
            why = preferred
            lost.add(preferred, choice.words[0])
        else:
            rows.append(preferred)
    waiting = tuple(
        Waiting(
            question=code(plain.tenant, scale, *(f"{each.role}\0{each.content}" for each in plain.prompt)),
            score=value,
            candidate=replace(plain, weight=weight, words=words, origin=origin),
        )
        for scale, value, weight, words, origin in _scored(found)
    )
    if rows or waiting:
        return Outcome(rows=tuple(rows), waiting=waiting)
    return Outcome(why=why or Reason.OTHER_FEEDBACK)


def _scored(found: Verdict) -> list[tuple[str, float, float, tuple[str, ...], str]]:
    """(scale, value, weight, words, origin) of each scale that this answer stands on; thumbs are a scale of two."""
    rated = [(f"scalar:{each.scale}", each.value, each.weight, each.words, "stars") for each in found.scores]
    if found.liked is not None and found.edit is None:
        liked = found.liked
        rated.append(("thumbs", 1.0 if liked.yes else -1.0, liked.weight, liked.words, "thumbs"))
    return rated


def _rl(plain: Candidate, found: Verdict, rules: Rules) -> Outcome:
    """A prompt to try answers on, with the corrected answer and the score of the one that was given, if there are."""
    score = found.scores[0].value if found.scores else (1.0 if found.liked.yes else -1.0) if found.liked else None
    if found.edit is None and score is None and not rules.unrated_too:
        return Outcome(why=found.why or Reason.OTHER_FEEDBACK)
    reference = found.edit.text if found.edit else plain.answer if score is not None and score > 0 else ""
    words = found.edit.words if found.edit else found.liked.words if found.liked else ()
    return Outcome(rows=(replace(plain, answer=reference, score=score, words=words),))


def _edited(plain: Candidate, edit: Edit) -> Candidate:
    return replace(plain, answer=edit.text, weight=edit.weight, words=edit.words, origin="correction")


def _edit_pair(plain: Candidate, edit: Edit, rules: Rules) -> Candidate | Reason:
    if _same(edit.text, plain.answer):
        return Reason.NO_CHANGE
    if nearer(edit.text, plain.answer, rules.edit_min):
        return Reason.TINY_EDIT
    return replace(_edited(plain, edit), rejected=plain.answer)


def _preferred(plain: Candidate, choice: Preferred, find: Find) -> Candidate | Reason:
    other = find(choice.other, plain.tenant)
    if other is None:
        return Reason.OTHER_MISSING
    why = unfit(other)
    if why is not None:
        return why
    read = exchange(other)
    if isinstance(read, Reason):
        return read
    if read.prompt != plain.prompt:
        return Reason.OTHER_PROMPT
    if _same(read.answer, plain.answer):
        return Reason.SAME_ANSWERS
    return replace(
        plain,
        rejected=read.answer,
        weight=choice.weight,
        words=choice.words,
        inferences=(*plain.inferences, other.id),
        origin="preference",
    )


def nearer(one: str, other: str, least: float) -> bool:
    """Whether two texts are less than this apart, from 0 to 1. Numbers count whole: 30 days are not nearly 45 days."""
    if _digits(one) != _digits(other):
        return False
    compared = SequenceMatcher(None, one[:_COMPARED_MAX], other[:_COMPARED_MAX], autojunk=False)
    bounds = (compared.real_quick_ratio, compared.quick_ratio, compared.ratio)  # the cheap ones are upper bounds
    return all(1.0 - bound() < least for bound in bounds)


def _digits(text: str) -> str:
    return "".join(each for each in text if each.isdigit())


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()) == " ".join(other.split())
