"""What a row of a file means: OpenAI (SFT, DPO, RFT), TRL, Alpaca, ShareGPT. Told by the names of its fields. Pure.

Fields that a format does not have are ignored, as OpenAI and TRL do; a row that no format fits is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

from training.data.imports.files import BadLine
from training.data.reasons import MEANS, Reason
from training.data.signals.answers import disorder, messages, text
from training.data.values import Candidate, Kind, Message

Format: TypeAlias = Literal["openai", "trl", "alpaca", "sharegpt"]
FORMATS: tuple[Format, ...] = get_args(Format)
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
}
_YES, _NO = frozenset({"true", "1", "yes", "up", "good"}), frozenset({"false", "0", "no", "down", "bad"})
#: What a dataset of one kind can make of rows of another.
_SERVES: Mapping[Kind, frozenset[Kind]] = {
    "sft": frozenset({"sft", "rl"}),
    "kto": frozenset({"kto"}),
    "dpo": frozenset({"dpo", "reward"}),
    "reward": frozenset({"dpo", "reward"}),
    "rl": frozenset({"rl"}),
    "text": frozenset({"text"}),
}


def parsed(row: Mapping[str, Any], wanted: Kind | None = None, format_: Format | None = None) -> Candidate:
    """The candidate that a row is. Raises BadLine."""
    read = _FORMS[format_] if format_ else _reader(row)
    found = read(row)
    if wanted is not None and wanted != found.kind:
        if wanted not in _SERVES[found.kind]:
            raise BadLine(f"a row for {found.kind}, in a dataset for {wanted}")
        found = replace(found, kind=wanted)
    if found.kind == "rl":
        found = replace(found, prompt=tuple(replace(each, trained=False) for each in found.prompt))
    return found


def _reader(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Candidate]:
    if "preferred_output" in row or "non_preferred_output" in row or "messages" in row:
        return _openai
    if "conversations" in row:
        return _sharegpt
    if "instruction" in row:
        return _alpaca
    return _trl


def _openai(row: Mapping[str, Any]) -> Candidate:
    if row.get("tools") or row.get("functions"):
        raise BadLine(MEANS[Reason.TOOLS])
    if "messages" in row:
        return _turns(_said(row["messages"], "messages"), row.get("messages"), reference=row.get("reference_answer"))
    asked = row.get("input")
    if type(asked) is not dict or "messages" not in asked:
        raise BadLine("input must hold messages")
    if asked.get("tools"):
        raise BadLine(MEANS[Reason.TOOLS])
    better, worse = (_one(row.get(name), name) for name in ("preferred_output", "non_preferred_output"))
    return _pair(_prompt(_said(asked["messages"], "input.messages")), better, worse)


def _trl(row: Mapping[str, Any]) -> Candidate:
    if "chosen" in row and "rejected" in row:
        return _trl_pair(row)
    if "prompt" in row and ("completion" in row or "response" in row):
        prompt = _prompt(_asked(row["prompt"]))
        answer = _one(row.get("completion", row.get("response")), "completion")
        if "label" not in row:
            return Candidate(kind="sft", prompt=prompt, answer=answer, origin="import")
        return Candidate(kind="kto", prompt=prompt, answer=answer, label=_label(row["label"]), origin="import")
    if type(row.get("text")) is str:
        if not row["text"].strip():
            raise BadLine(MEANS[Reason.EMPTY])
        return Candidate(kind="text", prompt=(), answer=row["text"], origin="import")
    if "prompt" in row:
        reference = next((row[name] for name in ("reference", "reference_answer", "answer") if row.get(name)), "")
        return Candidate(kind="rl", prompt=_prompt(_asked(row["prompt"])), answer=str(reference), origin="import")
    raise BadLine(
        "its fields are of no known format: " + (", ".join(sorted(map(str, row))[:8]) or "none") + "; known are "
        "messages · prompt, completion (, label) · prompt, chosen, rejected · input, preferred_output, "
        "non_preferred_output · instruction, output · conversations · text"
    )


def _trl_pair(row: Mapping[str, Any]) -> Candidate:
    if "prompt" in row:
        return _pair(_prompt(_asked(row["prompt"])), _one(row["chosen"], "chosen"), _one(row["rejected"], "rejected"))
    better, worse = (_said(row[name], name) for name in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(better), len(worse)) - 1 and better[shared] == worse[shared]:
        shared += 1
    if len(better) != shared + 1 or len(worse) != shared + 1:
        raise BadLine("chosen and rejected differ in more than their last turn")
    return _pair(_prompt(better[:-1]), better[-1].content, worse[-1].content)


def _alpaca(row: Mapping[str, Any]) -> Candidate:
    told, given = (row.get(name) or "" for name in ("instruction", "input"))
    answer, system = row.get("output", row.get("response")), row.get("system") or ""
    if not all(type(each) is str for each in (told, given, answer, system)):
        raise BadLine("instruction, input, output and system must be text")
    asked = f"{told}\n\n{given}" if given.strip() else told
    said = [Message(role="system", content=system)] if system else []
    return Candidate(
        kind="sft",
        prompt=_prompt((*said, Message(role="user", content=asked))),
        answer=_one(answer, "output"),
        origin="import",
    )


def _sharegpt(row: Mapping[str, Any]) -> Candidate:
    turns = row.get("conversations")
    if type(turns) is not list:
        raise BadLine("conversations must be a list")
    said: list[Message] = []
    for each in turns:
        if type(each) is not dict:
            raise BadLine("a turn must be an object")
        speaker, words = each.get("from", each.get("role")), each.get("value", each.get("content"))
        if speaker not in _SPEAKERS or type(words) is not str:
            raise BadLine(
                f"a turn must be from one of {', '.join(_SPEAKERS)} and hold text; found {str(speaker)[:40]!r}"
            )
        said.append(Message(role=_SPEAKERS[speaker], content=words))
    if type(row.get("system")) is str and row["system"]:
        said.insert(0, Message(role="system", content=row["system"]))
    return _turns(tuple(said), None)


def _turns(said: tuple[Message, ...], raw: Any, *, reference: Any = None) -> Candidate:
    """A conversation whose assistant turns are learnt from, but for those of weight 0; up to the last that is."""
    if said[-1].role != "assistant":
        answer = reference if type(reference) is str else ""
        return Candidate(kind="rl", prompt=_prompt(said), answer=answer, origin="import")
    weights = [each.get("weight", 1) for each in raw] if raw else [1] * len(said)
    if any(each not in (0, 1, None) for each in weights):
        raise BadLine("a turn's weight must be 0 or 1")
    trained = [
        replace(each, trained=each.role == "assistant" and weight != 0)
        for each, weight in zip(said, weights, strict=True)
    ]
    while trained and not trained[-1].trained:
        trained.pop()
    if not trained:
        raise BadLine("no turn of the assistant has weight 1")
    if not trained[-1].content.strip():
        raise BadLine(MEANS[Reason.EMPTY])
    return Candidate(kind="sft", prompt=_prompt(tuple(trained[:-1])), answer=trained[-1].content, origin="import")


def _pair(prompt: tuple[Message, ...], better: str, worse: str) -> Candidate:
    if better.strip() == worse.strip():
        raise BadLine(MEANS[Reason.SAME_ANSWERS])
    return Candidate(kind="dpo", prompt=prompt, answer=better, rejected=worse, origin="import")


def _asked(value: Any) -> tuple[Message, ...]:
    return (Message(role="user", content=value),) if type(value) is str else _said(value, "prompt")


def _said(value: Any, name: str) -> tuple[Message, ...]:
    found = messages(value)
    if isinstance(found, Reason):
        raise BadLine(f"{name}: {_WHY.get(found, MEANS[found])}")
    return found


def _prompt(said: tuple[Message, ...]) -> tuple[Message, ...]:
    why = disorder(said)
    if why is not None:
        raise BadLine(MEANS[why])
    return said


def _one(value: Any, name: str) -> str:
    """One answer: text, or a list of one message of the assistant."""
    if type(value) is list and len(value) == 1 and type(value[0]) is dict and value[0].get("role") == "assistant":
        if value[0].get("tool_calls"):
            raise BadLine(f"{name}: {MEANS[Reason.TOOLS]}")
        value = value[0].get("content")
    found = text(value) if type(value) in (str, list) else Reason.UNREADABLE
    if isinstance(found, Reason):
        raise BadLine(f"{name} must be text or one message of the assistant")
    if not found.strip():
        raise BadLine(f"{name}: {MEANS[Reason.EMPTY]}")
    return found


def _label(value: Any) -> bool:
    if type(value) is bool:
        return value
    said = str(value).strip().lower()
    if said in _YES or said in _NO:
        return said in _YES
    raise BadLine(f"label must be true or false; found {str(value)[:40]!r}")


_WHY = {Reason.UNREADABLE: "must be a list of messages, each with a role and text"}
_FORMS: Mapping[Format, Callable[[Mapping[str, Any]], Candidate]] = {
    "openai": _openai,
    "trl": _trl,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
}
