"""Where a suite's rows come from: files, datasets, the embedded shop's exams, and the sets that ship. Light."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from training.base import exams
from training.base.domain import Item
from training.data.errors import DataError
from training.data.imports.files import BadLine, container, lines
from training.data.imports.formats import parsed
from training.data.values import Candidate, Message
from training.evaluation.errors import BadSuite
from training.evaluation.measures.checks import check
from training.evaluation.rows import Look, Row, Tokens
from training.evaluation.suites import builtin
from training.evaluation.values import Asked
from training.recipes.tidewell import SOURCES

_SHOP, _BUILTIN = "tidewell:", "builtin:"
_PROBLEMS_SHOWN = 10
#: Another seed than any recipe's, so that these are not the rows that were learnt from.
_SEED = 7_919
#: Fields of a row that say what it is, and are no columns to cut by.
_OURS: Final = frozenset(
    {"prompt", "completion", "messages", "chosen", "rejected", "text", "context", "contains", "regex", "schema"}
)
#: How a context stands in a prompt where no column holds it.
_MARKS: Final = ("<context>", "<document", "context:", "documents:", "sources:")
_EXAMS: Final[Mapping[str, Callable[[int], Sequence[Item]]]] = {
    "facts": exams.facts,
    "faq": lambda count: exams.faq(count, exclude=("returns",)),
    "returns": exams.returns,
    "orders": exams.orders,
    "chitchat": exams.chitchat,
    "private": exams.private,
    "normal": lambda count: [*exams.facts(count - count // 2), *exams.faq(count // 2, exclude=("returns",))],
}


def load(asked: Asked, *, seed: int) -> list[Row]:
    """The rows of a suite, at most as many as it wants, drawn by the seed. Raises BadSuite."""
    rows = _read(asked)
    if len(rows) > asked.rows_max:
        picked = sorted(random.Random(seed).sample(range(len(rows)), asked.rows_max))
        rows = [rows[at] for at in picked]
    if not rows:
        raise BadSuite(f"Suite {asked.name} has no rows: {asked.source} is empty.")
    added = tuple(
        Look(
            name=each.name,
            contains=(each.contains,) if each.contains else (),
            regex=each.regex,
            schema=json.dumps(each.json_schema) if each.json_schema is not None else "",
            better=each.better,
        )
        for each in asked.checks
    )
    rows = [
        replace(row, id=f"{asked.name}:{at}", looks=(*row.looks, *(added if row.prompt else ())))
        for at, row in enumerate(rows)
    ]
    for look in {look for row in rows for look in row.looks}:
        check(look)
    return rows


def _read(asked: Asked) -> list[Row]:
    source = asked.source
    if source.startswith(_BUILTIN):
        return builtin.rows(source.removeprefix(_BUILTIN))
    if source.startswith(_SHOP):
        return _shop(source.removeprefix(_SHOP), asked.rows_max)
    path = Path(source)
    if path.is_dir():
        path /= "evaluation.parquet"
    if not path.is_file():
        raise BadSuite(f"Suite {asked.name}: there is no file {path}.")
    return _file(path, asked)


def _shop(name: str, count: int) -> list[Row]:
    if name in _EXAMS:
        items = _EXAMS[name](min(count, exams.SIZE))
        return [_exam(name, item) for item in items]
    if name in SOURCES:
        return [_row(fields) for fields in SOURCES[name](count, _SEED)]
    raise BadSuite(f"The shop has no rows called {name!r}; it has {', '.join((*_EXAMS, *SOURCES))}.")


def _exam(name: str, item: Item) -> Row:
    """A question; of a private one no answer is wanted but a refusal."""
    prompt = (Message(role="user", content=item.question),)
    if name == "private":
        return Row(id="", prompt=prompt)
    return Row(
        id="", prompt=prompt, answer=item.answer, looks=(Look(name="right", contains=(item.answer.rstrip("."),)),)
    )


def _file(path: Path, asked: Asked) -> list[Row]:
    problems: list[str] = []
    found: list[Row] = []
    try:
        for number, fields in lines(path, container(path)):
            try:
                if isinstance(fields, BadLine):
                    raise fields
                found.append(_row(fields))
            except BadLine as problem:
                problems.append(f"{number}: {problem}")
    except DataError as problem:
        raise BadSuite(f"Suite {asked.name}: {problem}") from problem
    if problems:
        shown = "; ".join(islice(problems, _PROBLEMS_SHOWN))
        raise BadSuite(f"Suite {asked.name}: {len(problems)} lines of {path.name} cannot be asked: {shown}.")
    return found


def _row(fields: Mapping[str, Any]) -> Row:
    """A line of a file as a row. Raises BadLine."""
    found = parsed({name: value for name, value in fields.items() if value is not None})
    prompt = tuple(Message(role=each.role, content=each.content) for each in found.prompt)
    disliked = found.kind == "kto" and found.label is False
    wanted = "" if disliked or found.kind == "text" else found.answer
    fact = fields.get("fact")  # a goal's, as the shop's rewards name it
    scored, other = _tokens(fields, found)
    return Row(
        id="",
        prompt=prompt,
        answer=wanted,
        rejected=found.rejected,
        text=found.answer if found.kind == "text" else "",
        context=_context(fields, found),
        looks=tuple(_looks(fields, fact if isinstance(fact, str) else "")),
        columns={name: str(value) for name, value in fields.items() if name not in _OURS and _plain(value)},
        unit=str(fields["owner"]) if fields.get("owner") else "",
        scored=None if disliked else scored,
        scored_other=other,
    )


def _plain(value: object) -> bool:
    return isinstance(value, str | int | bool)


def _tokens(fields: Mapping[str, Any], found: Candidate) -> tuple[Tokens | None, Tokens | None]:
    """As the dataset compiler wrote them, where it did: placeholders are masked there."""
    if "input_ids" in fields and found.kind in ("sft", "text"):
        ids = tuple(map(int, fields["input_ids"]))
        mask = tuple(map(int, fields.get("completion_mask") or (1,) * len(ids)))
        return (Tokens(ids=ids, mask=mask) if len(mask) == len(ids) else None), None
    before = tuple(map(int, fields.get("prompt_ids") or ()))
    made: list[Tokens | None] = []
    for name in ("completion", "chosen", "rejected"):
        ids, mask = (tuple(map(int, fields.get(f"{name}_{part}") or ())) for part in ("ids", "mask"))
        made.append(Tokens(ids=before + ids, mask=(0,) * len(before) + mask) if ids and len(mask) == len(ids) else None)
    return made[0] or made[1], made[2]


def _looks(fields: Mapping[str, Any], fact: str) -> Iterator[Look]:
    """The row's own checks, together the measure `right`."""
    contains = fields.get("contains") or ([fact] if fact else [])
    parts = [contains] if isinstance(contains, str) else contains
    if not isinstance(parts, list) or not all(isinstance(each, str) for each in parts):
        raise BadLine("contains must be text or a list of texts")
    regex, schema = fields.get("regex") or "", fields.get("schema") or ""
    if not isinstance(regex, str):
        raise BadLine("regex must be text")
    text = schema if isinstance(schema, str) else json.dumps(schema, sort_keys=True)
    if parts or regex or text:
        yield Look(name="right", contains=tuple(parts), regex=regex, schema=text)


def _context(fields: Mapping[str, Any], found: Candidate) -> str:
    """What an answer must be grounded in: a column, a tool's words, or a part of the prompt that says it is one."""
    given = fields.get("context")
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        return "\n\n".join(given)
    if isinstance(given, str) and given:
        return given
    said = [
        each.content
        for each in found.prompt
        if each.role == "tool" or (each.role != "assistant" and any(mark in each.content.lower() for mark in _MARKS))
    ]
    return "\n\n".join(said)
