"""What a record's captured bodies say to a reader: the prompt, the answer, how sure the model was. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from monitoring.records.events import Inference


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Nothing in it names a model, an adapter or an arm, so that it can be shown blind."""

    prompt: str  # all of it, role by role
    asked: str  # the last thing the user said
    answer: str
    logprob: float = math.nan  # the answer's mean, natural logarithm; NaN where the answer holds none
    tokens: int = 0  # that have a logprob


def words(record: Inference) -> Words | None:
    """None where the record's policy kept no bodies: there is nothing to show anybody."""
    if record.request is None:
        return None
    request, response = _document(record.request), _document(record.response or "{}")
    turns = list(_turns(request)) if request else [("user", record.request)]  # no JSON: its beginning, as it came
    asked = next((text for role, text in reversed(turns) if role == "user"), turns[-1][1] if turns else "")
    choice = _first(response.get("choices"))
    logprobs = [value for value in _logprobs(choice) if math.isfinite(value)]
    return Words(
        prompt="\n\n".join(f"{role}: {text}" for role, text in turns),
        asked=asked,
        answer=_answer(response, choice),
        logprob=math.fsum(logprobs) / len(logprobs) if logprobs else math.nan,
        tokens=len(logprobs),
    )


def _document(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if type(found) is dict else {}


def _turns(request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(who, what) of every turn, whichever endpoint was asked."""
    if request.get("instructions"):
        yield "system", _text(request["instructions"])
    said = request.get("messages", request.get("input", request.get("prompt")))
    if type(said) is not list or not all(type(part) is dict for part in said):
        if said is not None:
            yield "user", _text(said)
        return
    for part in said:
        calls = part.get("tool_calls")
        yield str(part.get("role") or "user"), _text(part.get("content")) + (_text(calls) if calls else "")


def _answer(response: dict[str, Any], choice: dict[str, Any]) -> str:
    message = choice.get("message")
    if type(message) is dict:
        calls = message.get("tool_calls")
        return _text(message.get("content") or message.get("refusal")) + (_text(calls) if calls else "")
    if "text" in choice:
        return _text(choice["text"])
    output = response.get("output")
    if type(output) is list:
        return "\n\n".join(_text(part.get("content") or part.get("arguments")) for part in output if type(part) is dict)
    return ""


def _text(value: Any) -> str:
    """Parts of a message as one text; what is no text as the JSON that it is."""
    if value is None:
        return ""
    if type(value) is str:
        return value
    if type(value) is list and value and all(type(part) is dict and type(part.get("text")) is str for part in value):
        return "\n".join(part["text"] for part in value)
    return orjson.dumps(value).decode()


def _logprobs(choice: dict[str, Any]) -> Iterator[float]:
    found = choice.get("logprobs")
    if type(found) is not dict:
        return
    content, tokens = found.get("content"), found.get("token_logprobs")
    if type(content) is list:
        yield from (float(part["logprob"]) for part in content if type(part) is dict and _number(part.get("logprob")))
    elif type(tokens) is list:
        yield from (float(value) for value in tokens if _number(value))


def _number(value: Any) -> bool:
    return type(value) is float or type(value) is int


def _first(choices: Any) -> dict[str, Any]:
    if type(choices) is list and choices and type(choices[0]) is dict:
        return choices[0]
    return {}
