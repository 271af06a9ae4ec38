"""From what a reviewer said to what is kept of it: checked, and turned into feedback. Pure but for new ids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from monitoring.records.events import Feedback, uuid7
from monitoring.review.errors import BadAnswer
from monitoring.review.values import Answer, Kind, Said, Task
from monitoring.safety.redact import redact

TEXT_CHARS_MAX = 64 << 10
SCALARS_MAX = 16
_NAME_CHARS_MAX = 64


def check(task: Task, said: Said) -> None:
    """Raises BadAnswer with every reason."""
    if reasons := list(_wrong(task.kind, said)):
        raise BadAnswer(reasons)


def answered(task: Task, reviewer: str, said: Said, *, now: float, flipped: bool = False) -> Answer:
    """What this room keeps: no words."""
    return Answer(
        task=task.id,
        reviewer=reviewer,
        at=now,
        thumbs=said.thumbs,
        scalars=dict(said.scalars),
        choice=said.choice,
        flipped=flipped,
    )


def feedback(task: Task, reviewer: str, said: Said, *, now: float, key_id: str = "") -> list[Feedback]:
    """What was said as events, their text redacted. A tie prefers neither, and so leaves nothing but its comment."""

    def word(kind: Any, target: str = task.completions[0], **values: Any) -> Feedback:
        return Feedback(
            id=uuid7(), at=now, tenant=task.tenant, target=target, kind=kind, rater=reviewer, rater_kind="reviewer",
            key_id=key_id, source="review", **values,
        )  # fmt: skip

    comment = redact(said.comment).text if said.comment.strip() else None
    if task.kind is Kind.COMPARE:
        first, second = task.completions
        found = [word("comment", each, text=comment) for each in task.completions] if comment else []
        if said.choice == "first":
            found.append(word("preference", first, other=second, value=1.0))
        elif said.choice == "second":
            found.append(word("preference", second, other=first, value=1.0))
        return found
    found = [word("thumbs", value=float(said.thumbs))] if said.thumbs else []
    found += [word("scalar", name=name, value=float(value)) for name, value in said.scalars.items()]
    if comment:
        found.append(word("comment", text=comment))
    if said.correction is not None:
        found.append(word("correction", text=redact(said.correction).text))
    return found


def _wrong(kind: Kind, said: Said) -> Iterator[str]:
    if kind is Kind.COMPARE:
        if said.choice is None:
            yield "a comparison needs a choice: left, right or tie"
        if said.thumbs is not None or said.scalars or said.correction is not None:
            yield "a comparison takes a choice and a comment, and no thumbs, scalars or correction"
    else:
        if said.choice is not None:
            yield "one answer cannot be chosen among: give thumbs, scalars, a comment or a correction"
        elif said.thumbs is None and not said.scalars and not said.comment.strip() and said.correction is None:
            yield "it says nothing: give thumbs (1 or -1), scalars, a comment or a correction, or pass it over"
    if said.thumbs not in (None, 1, -1):
        yield f"thumbs are 1 or -1; found {said.thumbs}"
    if said.correction is not None and not said.correction.strip():
        yield "a correction needs the text that the answer should have been"
    if len(said.scalars) > SCALARS_MAX:
        yield f"at most {SCALARS_MAX} scalars; found {len(said.scalars)}"
    for name, value in said.scalars.items():
        if not name or len(name) > _NAME_CHARS_MAX:
            yield f"a scalar's name has 1 to {_NAME_CHARS_MAX} characters; found {name[:80]!r}"
        if not math.isfinite(value):
            yield f"scalar {name[:80]!r} must be a finite number; found {value}"
    for what, text in (("comment", said.comment), ("correction", said.correction or "")):
        if len(text) > TEXT_CHARS_MAX:
            yield f"the {what} may have {TEXT_CHARS_MAX} characters; found {len(text)}"
