"""What all that was said of one answer comes to. Pure.

Of each rater the last word of each kind counts. Words are weighed by who said them; more weight wins, and what loses is
counted. A correction is also a word against the answer, unless its rater says otherwise of the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from monitoring.records.events import Feedback
from monitoring.records.feedback import latest
from training.data.reasons import Reason, Tally
from training.data.rules import Rules

#: No answer counts for more than this, however many said the same.
WEIGHT_MAX = 2.0
#: A scalar's value, less its rater's mean on that scale.
Centred = Callable[[Feedback], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Something that was said, with its weight and the ids of the words behind it."""

    weight: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit(Weighed):
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Liked(Weighed):
    yes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred(Weighed):
    """Over the answer with this completion id."""

    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Weighed):
    scale: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    edit: Edit | None = None
    liked: Liked | None = None
    preferred: tuple[Preferred, ...] = ()
    scores: tuple[Score, ...] = ()
    why: Reason | None = None  # why there is neither thumb nor score, where words for them came


def verdict(said: Sequence[Feedback], rules: Rules, centred: Centred, lost: Tally) -> Verdict:
    """What the words on one answer come to. `lost` counts those that do not."""
    counting = latest(said)
    if len(counting) < len(said):
        lost.add(Reason.OUTVOTED, count=len(said) - len(counting))
    kinds: dict[str, list[Feedback]] = {}
    for word in counting:
        if weight(word, rules) < rules.weight_min:
            lost.add(Reason.LOW_WEIGHT, word.id)
        else:
            kinds.setdefault(word.kind, []).append(word)
    edit = _edit(kinds.get("correction", ()), rules, lost)
    liked = _liked(kinds, rules, lost)
    scores = _scores(kinds.get("scalar", ()), rules, centred, lost)
    for word in kinds.get("comment", ()):
        lost.add(Reason.OTHER_FEEDBACK, word.id)
    return Verdict(
        edit=edit,
        liked=liked if isinstance(liked, Liked) else None,
        preferred=tuple(
            Preferred(other=word.other, weight=weight(word, rules), words=(word.id,))
            for word in kinds.get("preference", ())
            if word.other
        ),
        scores=scores,
        why=liked if isinstance(liked, Reason) else None,
    )


def weight(word: Feedback, rules: Rules) -> float:
    """How much this word counts: its rater's kind, the rater, and whether it was said of this answer alone."""
    own = rules.rater_kinds.get(word.rater_kind, 0.0) * rules.raters.get(word.rater, 1.0)
    return own * (rules.conversation_weight if word.target_kind == "conversation" else 1.0)


def by_score(scores: Sequence[Score], rules: Rules) -> Liked | Reason:
    """A thumb out of scores: good or bad by more than the margin, over all scales."""
    total = sum(each.weight for each in scores)
    mean = sum(each.value * each.weight for each in scores) / total if total else 0.0
    if abs(mean) < rules.score_margin or not total:
        return Reason.UNDECIDED
    return Liked(
        yes=mean > 0, weight=min(total, WEIGHT_MAX), words=tuple(word for each in scores for word in each.words)
    )


def _edit(words: Sequence[Feedback], rules: Rules, lost: Tally) -> Edit | None:
    """Of several corrections the weightiest, then the latest."""
    texts = [word for word in words if word.text and word.text.strip()]
    if len(texts) < len(words):
        lost.add(Reason.EMPTY, count=len(words) - len(texts))
    if not texts:
        return None
    best = max(texts, key=lambda word: (weight(word, rules), word.at, word.id))
    if len(texts) > 1:
        lost.add(Reason.OUTVOTED, best.id, len(texts) - 1)
    return Edit(text=best.text or "", weight=min(weight(best, rules), WEIGHT_MAX), words=(best.id,))


@dataclass(slots=True)
class _Votes:
    weight: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    words: dict[bool, list[str]] = field(default_factory=lambda: {True: [], False: []})

    def add(self, yes: bool, by: float, word: Feedback) -> None:
        self.weight[yes] += by
        self.words[yes].append(word.id)


def _liked(kinds: Mapping[str, Sequence[Feedback]], rules: Rules, lost: Tally) -> Liked | Reason | None:
    votes = _Votes()
    edited = {(word.rater_kind, word.rater) for word in kinds.get("correction", ())}
    taken_back = False
    for word in kinds.get("thumbs", ()):
        if word.value is None or word.value == 0:
            taken_back = True
            lost.add(Reason.TAKEN_BACK, word.id)
        elif word.value > 0 and (word.rater_kind, word.rater) in edited:
            lost.add(Reason.OUTVOTED, word.id)  # who rewrites an answer does not stand by it
        else:
            votes.add(word.value > 0, weight(word, rules), word)
    for word in kinds.get("implicit", ()):
        if word.name in rules.implicit:
            votes.add(rules.implicit[word.name], weight(word, rules), word)
        else:
            lost.add(Reason.OTHER_FEEDBACK, word.id)
    against = set(votes.words[False])
    thumbed = {(w.rater_kind, w.rater) for w in kinds.get("thumbs", ()) if w.id in against}
    for word in kinds.get("correction", ()):
        if (word.rater_kind, word.rater) not in thumbed:
            votes.add(False, weight(word, rules), word)
    for_, against_ = votes.weight[True], votes.weight[False]
    if not for_ and not against_:
        return Reason.TAKEN_BACK if taken_back else None
    if for_ == against_:
        return Reason.TIED
    yes = for_ > against_
    if votes.words[not yes]:
        lost.add(Reason.OUTVOTED, votes.words[not yes][0], len(votes.words[not yes]))
    margin = abs(for_ - against_)
    if margin < rules.weight_min:
        return Reason.LOW_WEIGHT
    return Liked(yes=yes, weight=min(margin, WEIGHT_MAX), words=tuple(votes.words[yes]))


def _scores(words: Sequence[Feedback], rules: Rules, centred: Centred, lost: Tally) -> tuple[Score, ...]:
    """One score for each scale: the mean of its raters' words, each less its rater's own mean."""
    scales: dict[str, list[Feedback]] = {}
    for word in words:
        if word.value is None:
            lost.add(Reason.TAKEN_BACK, word.id)
        elif rules.scales and word.name not in rules.scales:
            lost.add(Reason.OTHER_FEEDBACK, word.id)
        else:
            scales.setdefault(word.name, []).append(word)
    found = []
    for scale, said in sorted(scales.items()):
        total = sum(weight(word, rules) for word in said)
        value = sum(weight(word, rules) * centred(word) for word in said) / total
        ids = tuple(word.id for word in said)
        found.append(Score(scale=scale, value=value, weight=min(total, WEIGHT_MAX), words=ids))
    return tuple(found)
