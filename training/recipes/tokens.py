"""Rows by the tokens of the base that is trained: the compiler's own, made again where they are another base's, and
made for rows that have none but stand beside such. So masks of placeholders are lost in no mixture. Heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from training.data.template import Encoded, Template
from training.data.values import Candidate, Kind, Message
from training.recipes.recipe import Method
from training.recipes.rows import TAKEN, Row

_KINDS: Final[Mapping[Method, Kind]] = {
    "sft": "sft", "pretrain": "text", "kto": "kto", "dpo": "dpo", "orpo": "dpo", "reward": "reward",
}  # fmt: skip
#: So many rows tell whether tokens are this base's.
_PROBED = 16
_BATCH = 256
_TOKENS = frozenset({
    "input_ids", "labels", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids", "completion_mask",
    "chosen_mask", "rejected_mask",
})  # fmt: skip


def fitted(rows: Sequence[Row], method: Method, base: Path) -> tuple[list[Row], str]:
    """The rows, all with this base's tokens if any has tokens and texts allow it; and what to say of it."""
    kind = _KINDS.get(method)
    have = [row for row in rows if TAKEN[method][0] <= row.keys()]
    if kind is None or not have:
        return list(rows), ""
    template = Template(base)
    if _are_of(template, have[:_PROBED], kind):
        done = encoded(rows, kind, template, again=False)
        more = sum(1 for row, one in zip(rows, done, strict=True) if row is not one)
        return done, f"{more} rows had no tokens yet and got them from this base's template" if more else ""
    done = encoded(rows, kind, template, again=True)
    return done, "the rows' tokens are another base's: all were made again, of answers only the last is learnt"


def encoded(rows: Sequence[Row], kind: Kind, template: Template, *, again: bool) -> list[Row]:
    """The rows with tokens; `again` also for those that have some. One whose texts are not plain stays without."""
    made: list[Row] = []
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        wanted = [None if _TOKENS & row.keys() and not again else _candidate(row, kind) for row in some]
        tokens = iter(template.encode([each for each in wanted if each is not None]))
        for row, candidate in zip(some, wanted, strict=True):
            bare = {name: value for name, value in row.items() if name not in _TOKENS} if again else row
            found = next(tokens) if candidate is not None else None
            made.append({**bare, **found.columns} if isinstance(found, Encoded) else bare)
    return made


def _are_of(template: Template, rows: Sequence[Row], kind: Kind) -> bool:
    """Whether the tokens that stand in these rows are what this template makes of their texts."""
    for row in rows:
        candidate = _candidate(row, kind)
        if candidate is None:
            continue
        found = template.encode([candidate])[0]
        if not isinstance(found, Encoded):
            return False
        if any(list(row[name]) != ids for name, ids in found.columns.items() if name.endswith("_ids") and name in row):
            return False
    return True


def _candidate(row: Row, kind: Kind) -> Candidate | None:
    """A row's texts as the compiler knows them; None for tools, images, and texts that no template wraps."""
    if kind == "text":
        text = row.get("text")
        return Candidate(kind=kind, prompt=(), answer=text, origin="row") if isinstance(text, str) else None
    prompt = _messages(row.get("prompt"))
    answers = [_messages(row.get(name)) for name in (("chosen", "rejected") if kind in ("dpo", "reward") else _SINGLE)]
    if not prompt or any(each is None or len(each) != 1 for each in answers):
        return None
    texts = [each[0].content for each in answers if each]
    return Candidate(
        kind=kind, prompt=prompt, answer=texts[0], rejected=texts[1] if len(texts) > 1 else "", origin="row"
    )


_SINGLE = ("completion",)


def _messages(value: Any) -> tuple[Message, ...] | None:
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        return None
    if not all(isinstance(each.get("content"), str) and not each.get("tool_calls") for each in value):
        return None
    return tuple(Message(role=str(each["role"]), content=each["content"]) for each in value)
