"""Label Studio's JSON: our tasks and answers as its tasks, and what was labelled there as answers of ours. Pure.

Its format is described at https://labelstud.io/guide/task_format. A file takes `config` as its labelling interface.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from monitoring.review.values import Answer, Kind, Said, Task, shown
from monitoring.review.words import Words

#: Fields of ours in a task's `data` and in an annotation. Label Studio keeps the first two, and may drop the last.
TASK, FLIPPED, REVIEWER = "graftline_task", "graftline_flipped", "graftline_reviewer"
#: Begins the ids of results that we wrote: Label Studio keeps them, so that they are known when they come back.
OURS = "gl-"
THUMBS = {1: "up", -1: "down"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A task as it goes out. `words` stand in the task's order; `flipped` is how the file shows them."""

    task: Task
    words: Sequence[Words]
    flipped: bool = False
    said: Sequence[tuple[Answer, Said]] = ()


def exported(items: Iterable[Item]) -> list[dict[str, Any]]:
    """A list of tasks with their annotations; nothing in it names an adapter, an arm or why a pair was picked."""
    return [
        {"data": _data(item), "annotations": [_annotation(item, answer, said) for answer, said in item.said]}
        for item in items
    ]


def config(kind: Kind, scalars: Sequence[str] = ()) -> str:
    """The labelling interface that shows such a file; `scalars` are further numbers to ask for."""
    if kind is Kind.COMPARE:
        return (
            '<View>\n  <Text name="prompt" value="$prompt"/>\n  <View style="display: flex; gap: 1em">\n'
            '    <Text name="left" value="$left"/>\n    <Text name="right" value="$right"/>\n  </View>\n'
            '  <Choices name="choice" toName="left" choice="single" showInline="true">\n'
            '    <Choice value="left"/>\n    <Choice value="tie"/>\n    <Choice value="right"/>\n  </Choices>\n'
            '  <TextArea name="comment" toName="left"/>\n</View>\n'
        )
    numbers = "".join(f'  <Number name={quoteattr(name)} toName="answer"/>\n' for name in scalars)
    return (
        '<View>\n  <Text name="prompt" value="$prompt"/>\n  <Text name="answer" value="$answer"/>\n'
        '  <Choices name="thumbs" toName="answer" choice="single" showInline="true">\n'
        '    <Choice value="up"/>\n    <Choice value="down"/>\n  </Choices>\n'
        f'{numbers}  <TextArea name="comment" toName="answer"/>\n  <TextArea name="correction" toName="answer"/>\n'
        "</View>\n"
    )


def _data(item: Item) -> dict[str, Any]:
    task, flipped = item.task, item.flipped
    found: dict[str, Any] = {TASK: task.id, "kind": str(task.kind), "prompt": item.words[0].prompt}
    if task.kind is Kind.COMPARE:
        left, right = reversed(item.words) if flipped else item.words
        return found | {FLIPPED: flipped, "left": left.answer, "right": right.answer}
    return found | {"answer": item.words[0].answer, "why": f"{task.reason.by}: {task.reason.why}"}


def _annotation(item: Item, answer: Answer, said: Said) -> dict[str, Any]:
    mark = hashlib.sha256(f"{answer.task}\0{answer.reviewer}".encode()).hexdigest()[:12]
    to = "left" if item.task.kind is Kind.COMPARE else "answer"
    results = [
        {"id": f"{OURS}{mark}-{place}", "from_name": name, "to_name": to, "type": kind, "value": value}
        for place, (name, kind, value) in enumerate(_values(said, item.flipped))
    ]
    return {REVIEWER: answer.reviewer, "was_cancelled": False, "result": results}


def _values(said: Said, flipped: bool) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    if said.choice is not None:
        yield "choice", "choices", {"choices": [shown(said.choice, flipped)]}
    if said.thumbs is not None:
        yield "thumbs", "choices", {"choices": [THUMBS[said.thumbs]]}
    for name, value in said.scalars.items():
        yield name, "number", {"number": value}
    if said.comment:
        yield "comment", "textarea", {"text": [said.comment]}
    if said.correction is not None:
        yield "correction", "textarea", {"text": [said.correction]}
