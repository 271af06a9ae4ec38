"""Reviews as routes and the CLI show them. Nothing here tells which adapter or arm gave an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gateway.reviewing import Imported, Shown
from gateway.reviewing_picks import Picked
from monitoring.review.agreement import Agreement, Ratings, Value, alpha_of, fleiss_of, pairs
from monitoring.review.label_studio import THUMBS
from monitoring.review.values import Answer, Kind, Task, shown


def task(found: Task) -> dict[str, Any]:
    """`why` is left out of a comparison: what it was asked for by may name one of the two."""
    reason = {"by": str(found.reason.by)}
    if found.kind is Kind.LABEL:
        reason["why"] = found.reason.why
    return {
        "id": found.id,
        "object": "review.task",
        "kind": str(found.kind),
        "completions": sorted(found.completions),
        "picked": reason,
        "picked_at": found.picked_at,
        "picked_by": found.picked_by,
        "overlap": found.overlap,
        "answered": found.answered,
        "done": found.done,
    }


def listed(tasks: Sequence[Task], *, more: bool) -> dict[str, Any]:
    return {"object": "list", "data": [task(each) for each in tasks], "has_more": more}


def picked(found: Picked) -> dict[str, Any]:
    return listed(found.tasks, more=False) | {
        "looked_at": found.looked_at,
        "matching": found.matching,
        "hidden": found.hidden,
        "found": found.found,
    }


def claim(found: Shown | None) -> dict[str, Any]:
    """Without the ids of a pair's answers: whoever has them could look up whose they are."""
    if found is None:
        return {"object": "review.claim", "task": None}
    about = task(found.claim.task)
    document: dict[str, Any] = {"object": "review.claim", "task": about, "until": found.claim.until}
    document["prompt"] = found.words[0].prompt
    if found.claim.task.kind is Kind.LABEL:
        return document | {"answer": found.words[0].answer}
    del about["completions"]
    left, right = found.words
    return document | {"left": left.answer, "right": right.answer}


def imported(found: Imported) -> dict[str, Any]:
    return {"object": "review.import", "answers": found.answers, "known": found.known, "tasks": found.tasks}


def agreement(answers: Sequence[Answer]) -> dict[str, Any]:
    """Coefficients with the numbers they stand on; null where one is undefined."""
    thumbs: dict[str, dict[str, Value]] = {}
    choices: dict[str, dict[str, Value]] = {}
    scalars: dict[str, dict[str, dict[str, Value]]] = {}
    for each in answers:
        if each.thumbs is not None:
            thumbs.setdefault(each.task, {})[each.reviewer] = THUMBS[each.thumbs]
        if each.choice is not None:
            choices.setdefault(each.task, {})[each.reviewer] = each.choice
        for name, value in each.scalars.items():
            scalars.setdefault(name, {}).setdefault(each.task, {})[each.reviewer] = value
    chosen = [each for each in answers if each.choice in ("first", "second")]
    left = sum(shown(each.choice, each.flipped) == "left" for each in chosen if each.choice is not None)
    return {
        "object": "review.agreement",
        "answers": len(answers),
        "thumbs": _nominal(thumbs),
        "choices": _nominal(choices),
        "left_share": {"value": left / len(chosen) if chosen else None, "choices": len(chosen)},
        "scalars": {
            name: {"krippendorff_alpha": _figure(alpha_of(ratings, "interval"))}
            for name, ratings in sorted(scalars.items())
        },
    }


def _nominal(ratings: Ratings) -> dict[str, Any]:
    fleiss, people = fleiss_of(ratings)
    return {
        "tasks": len(ratings),
        "krippendorff_alpha": _figure(alpha_of(ratings)),
        "fleiss_kappa": {**_figure(fleiss), "reviewers": people},
        "cohen_kappa": [{"reviewers": [pair.first, pair.second], **_figure(pair.kappa)} for pair in pairs(ratings)],
    }


def _figure(found: Agreement) -> dict[str, Any]:
    return {
        "value": _known(found.value),
        "observed": _known(found.observed),
        "tasks": found.items,
        "ratings": found.ratings,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
