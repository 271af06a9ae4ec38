"""Where reviews meet the records: what the routes and the CLI call. Words are read from records, and become feedback.

An answer is durable as feedback before it counts as given: between the two a crash leaves a word of a reviewer whose
task is asked once more, and whose later word then takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.capture.compose import pseudonym
from monitoring.records.errors import NotFound
from monitoring.records.events import Feedback, encode
from monitoring.records.spool import Spool
from monitoring.records.store import Records
from monitoring.review import label_studio_import
from monitoring.review.errors import AlreadyAnswered, BadAnswer, BadImport, TaskNotFound
from monitoring.review.label_studio import Item
from monitoring.review.labels import answered, check, feedback
from monitoring.review.store import ReviewStore
from monitoring.review.values import Answer, Claim, Kind, Said, Sides, State, Task, coin, side
from monitoring.review.words import Words, words

#: Tasks whose record is gone that one `following` forgets before it gives up.
_GONE_MAX = 1000
#: Of one answer, to look for reviewers' among them.
_WORDS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What reviewing needs."""

    store: ReviewStore
    records: Records
    spool: Spool
    secret: bytes
    claim_s: float = 900.0

    def called(self, reviewer: str) -> str:
        """A reviewer as rows name them."""
        return pseudonym(reviewer.strip(), self.secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A task as a reviewer sees it: of a pair, the left answer first."""

    claim: Claim
    words: Sequence[Words]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of a file: answers taken, those that were known before, and the tasks they are on."""

    answers: int
    known: int
    tasks: int


def following(desk: Desk, tenant: str, reviewer: str, *, now: float, kind: Kind | None = None) -> Shown | None:
    """The next task for a reviewer, theirs for `claim_s`; None when there is none. Tasks whose record is gone go."""
    name = desk.called(reviewer)
    for _ in range(_GONE_MAX):
        claim = desk.store.claim(
            tenant,
            name,
            kind=kind,
            now=now,
            until=now + desk.claim_s,
            coin=lambda task, by: coin(desk.secret, task, by),
        )
        if claim is None:
            return None
        found = _words(desk, claim.task)
        if found is not None:
            return Shown(claim=claim, words=found[::-1] if claim.flipped else found)
        desk.store.drop(tenant, claim.task.id)
    return None


def answer(
    desk: Desk, tenant: str, task: str, reviewer: str, said: Said, seen: Sides | None, *, now: float, key_id: str = ""
) -> Task:
    """Take what a reviewer said; `seen` is the side they chose. Raises BadAnswer, TaskNotFound, ClaimLost,
    AlreadyAnswered, and SpoolFull when it cannot be made durable."""
    name = desk.called(reviewer)
    claim = desk.store.held(tenant, task, name, now=now)
    said = replace(said, choice=None if seen is None else side(seen, claim.flipped))
    check(claim.task, said)
    _say(desk, feedback(claim.task, name, said, now=now, key_id=key_id))
    return desk.store.answer(tenant, answered(claim.task, name, said, now=now, flipped=claim.flipped))


def skip(desk: Desk, tenant: str, task: str, reviewer: str, *, now: float) -> Task:
    """Pass a task over: it is free for others, and does not come back to this reviewer."""
    return desk.store.answer(tenant, Answer(task=task, reviewer=desk.called(reviewer), at=now, skipped=True))


def exports(desk: Desk, tenant: str, *, state: State, kind: Kind, after: str, limit: int) -> list[Item]:
    """The next tasks after an id, with their words and all that reviewers said so far. Tasks whose record is gone are
    left out; there are none after these only when there are none at all."""
    while tasks := desk.store.list(tenant, state=state, kind=kind, after=after, limit=limit):
        items = [item for task in tasks if (item := _item(desk, task)) is not None]
        if items:
            return items
        after = tasks[-1].id
    return []


def bring(desk: Desk, tenant: str, data: bytes, *, now: float, key_id: str = "") -> Imported:
    """Take a Label Studio file, all of it or nothing; what was taken before is not taken again. Raises BadImport."""
    reasons: list[str] = []
    known = 0
    fresh: dict[tuple[str, str], tuple[Task, str, Said, bool]] = {}
    for brought in label_studio_import.imported(data):
        name = desk.called(brought.reviewer)
        try:
            task = desk.store.held(tenant, brought.task, name, now=now, asked=False).task
            check(task, brought.said)
        except (TaskNotFound, BadAnswer) as problem:
            reasons.append(f"{brought.where}: {problem}")
        except AlreadyAnswered:
            known += 1
        else:
            known += (task.id, name) in fresh
            fresh.setdefault((task.id, name), (task, name, brought.said, brought.flipped))
    if reasons:
        raise BadImport(reasons)
    words_ = [
        word for task, name, said, _ in fresh.values() for word in feedback(task, name, said, now=now, key_id=key_id)
    ]
    _say(desk, words_)
    for task, name, said, flipped in fresh.values():
        desk.store.answer(tenant, answered(task, name, said, now=now, flipped=flipped), asked=False)
    return Imported(answers=len(fresh), known=known, tasks=len({task for task, _ in fresh}))


def _say(desk: Desk, said: Sequence[Feedback]) -> None:
    if said:
        desk.spool.append([encode(each) for each in said], sync=True)


def _words(desk: Desk, task: Task) -> Sequence[Words] | None:
    """In the task's order; None when a record is gone, or has lost its bodies."""
    try:
        found = [words(desk.records.get(record)) for record in task.records]
    except NotFound:
        return None
    return None if None in found else [each for each in found if each is not None]


def _item(desk: Desk, task: Task) -> Item | None:
    found = _words(desk, task)
    if found is None:
        return None
    flipped = task.kind is Kind.COMPARE and coin(desk.secret, task.id, "label-studio")
    answers = desk.store.answers(task.tenant, tasks=[task.id])
    said = _said(desk, task) if answers else []
    return Item(task=task, words=found, flipped=flipped, said=[(each, _whole(each, task, said)) for each in answers])


def _said(desk: Desk, task: Task) -> list[Feedback]:
    """What reviewers said of its answers, each one's last word."""
    found = (
        word
        for target in task.completions
        for word in desk.records.feedback(tenant=task.tenant, target=target, limit=_WORDS_MAX)
    )
    return [word for word in found if word.rater_kind == "reviewer"]


def _whole(answer: Answer, task: Task, said: Sequence[Feedback]) -> Said:
    """An answer with its words again."""
    mine = [word for word in said if word.rater == answer.reviewer and word.target == task.completions[0]]
    texts = {word.kind: word.text for word in mine}
    return Said(
        thumbs=answer.thumbs,
        scalars=answer.scalars,
        choice=answer.choice,
        comment=texts.get("comment") or "",
        correction=texts.get("correction"),
    )
