"""What was labelled in Label Studio, as answers of ours. Pure: everything wrong with a file is found in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from monitoring.review.errors import BadImport
from monitoring.review.label_studio import FLIPPED, OURS, REVIEWER, TASK, THUMBS
from monitoring.review.values import Said, Sides, Thumbs, side

TASKS_MAX = 10_000
REVIEWER_CHARS_MAX = 200

_SIDES: tuple[Sides, ...] = ("left", "right", "tie")
_UP: dict[str, Thumbs] = {"up": 1, "down": -1}
_WANTED = (
    "choices `thumbs` (up, down) and `choice` (left, tie, right), pairwise, numbers and ratings of any name, "
    "text areas `comment` and `correction`"
)

_Fields: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What one person said of one task there. `where` is its place in the file."""

    task: str
    reviewer: str  # as Label Studio names them: not yet a pseudonym
    said: Said
    flipped: bool
    where: str


def imported(data: bytes) -> list[Brought]:
    """The annotations of a file. Those that were cancelled say nothing; those that we exported and Label Studio took
    over as its own importer's are not said again. Raises BadImport with every reason."""
    reasons: list[str] = []
    found: list[Brought] = []
    for place, task in enumerate(_tasks(data)):
        found += _brought(task, f"task {place}", reasons)
    if reasons:
        raise BadImport(reasons)
    return found


def _tasks(data: bytes) -> Sequence[Any]:
    try:
        tasks = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadImport([f"it is not JSON ({error}); export as JSON, not as CSV or TSV"]) from None
    if type(tasks) is not list:
        raise BadImport([f"it must be a list of tasks; found {type(tasks).__name__}"])
    if not 0 < len(tasks) <= TASKS_MAX:
        raise BadImport([f"it must hold 1 to {TASKS_MAX} tasks; found {len(tasks)}"])
    return tasks


def _brought(task: Any, where: str, reasons: list[str]) -> Iterator[Brought]:
    data = task.get("data") if type(task) is dict else None
    if type(data) is not dict:
        reasons.append(f"{where}: there is no `data`; export as JSON, not as JSON-MIN")
        return
    name, flipped = data.get(TASK), data.get(FLIPPED, False)
    if type(name) is not str or type(flipped) is not bool:
        reasons.append(f"{where}: data.{TASK} must name a task of ours; found {str(name)[:60]!r}")
        return
    annotations = task.get("annotations")
    if type(annotations) is not list:
        reasons.append(f"{where}: `annotations` must be a list; found {type(annotations).__name__}")
        return
    for place, annotation in enumerate(annotations):
        at = f"{where}, annotation {place}"
        if type(annotation) is not dict or type(annotation.get("result")) is not list:
            reasons.append(f"{at}: there is no list `result`")
        elif not annotation.get("was_cancelled") and not _came_back(annotation):
            said, who = _said(annotation["result"], flipped, at, reasons), _reviewer(annotation)
            if who is None:
                reasons.append(f"{at}: nobody is named in `completed_by`: a number, or an object with `email` or `id`")
            elif said is not None:
                yield Brought(task=name, reviewer=who, said=said, flipped=flipped, where=at)


def _came_back(annotation: _Fields) -> bool:
    """Whether all of it is ours, and no longer says of whom."""
    results = annotation["result"]
    ids = [str(result.get("id", "")) if type(result) is dict else "" for result in results]
    return REVIEWER not in annotation and bool(ids) and all(each.startswith(OURS) for each in ids)


def _reviewer(annotation: _Fields) -> str | None:
    ours, by = annotation.get(REVIEWER), annotation.get("completed_by")
    if type(by) is dict:
        by = by.get("email") or by.get("id")
    found = ours if type(ours) is str else f"label-studio-{by}" if type(by) is int else by
    if type(found) is not str or not 0 < len(found) <= REVIEWER_CHARS_MAX or not found.isprintable():
        return None
    return found


def _said(results: Sequence[Any], flipped: bool, where: str, reasons: list[str]) -> Said | None:
    values: _Fields = {"scalars": {}}
    before = len(reasons)
    for place, result in enumerate(results):
        at = f"{where}, result {place}"
        value = result.get("value") if type(result) is dict else None
        if type(value) is not dict:
            reasons.append(f"{at}: there is no `value`")
            continue
        try:
            _take(values, str(result.get("type")), str(result.get("from_name")), value, flipped)
        except ValueError as problem:
            reasons.append(f"{at}: {problem}")
    return Said(**values) if len(reasons) == before else None


def _take(values: _Fields, kind: str, name: str, value: _Fields, flipped: bool) -> None:
    """Add one control's value to what is said. Raises ValueError for what we have no place for."""
    if kind == "choices" and name == "thumbs":
        values["thumbs"] = _UP[_one_of(value.get("choices"), tuple(THUMBS.values()))]
    elif kind == "choices" and name == "choice":
        values["choice"] = side(_side(_one_of(value.get("choices"), _SIDES)), flipped)
    elif kind == "pairwise":
        values["choice"] = side(_side(_one_of([value.get("selected")], _SIDES[:2])), flipped)
    elif kind in ("number", "rating"):
        found = value.get(kind)
        if type(found) is not int and type(found) is not float:
            raise ValueError(f"a {kind} must be a number; found {str(found)[:60]!r}")
        values["scalars"][name] = float(found)
    elif kind == "textarea" and name in ("comment", "correction"):
        text = value.get("text")
        lines = [text] if type(text) is str else text
        if type(lines) is not list or not all(type(line) is str for line in lines):
            raise ValueError(f"`text` must be a text or a list of texts; found {type(text).__name__}")
        values[name] = "\n".join(lines)
    else:
        raise ValueError(f"there is no place for the control {name[:60]!r} of type {kind[:60]!r}; wanted: {_WANTED}")


def _one_of(found: Any, allowed: Sequence[str]) -> str:
    if type(found) is not list or len(found) != 1 or found[0] not in allowed:
        raise ValueError(f"one of {', '.join(allowed)} must be chosen; found {str(found)[:60]}")
    return str(found[0])


def _side(name: str) -> Sides:
    return _SIDES[_SIDES.index(name)]
