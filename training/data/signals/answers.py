"""What was asked and answered, out of a record's redacted JSON; or why it cannot be told. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from monitoring.records.events import Inference
from training.data.reasons import Reason
from training.data.values import Message

_SYSTEM = frozenset({"system", "developer"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_TOOLS = frozenset({"tool", "function"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A conversation that ends with a user's turn, and the answer to it."""

    prompt: tuple[Message, ...]
    answer: str


def unfit(record: Inference) -> Reason | None:
    """Why nothing may be learnt from this answer, whatever it says."""
    if record.tainted:
        return Reason.TAINTED
    if record.status != 200:
        return Reason.FAILED
    if record.incomplete or record.error:
        return Reason.INCOMPLETE
    if record.captured != "full" or record.request is None or record.response is None:
        return Reason.NOT_CAPTURED
    if record.finish == "content_filter":
        return Reason.FILTERED
    if record.finish in ("length", "incomplete"):
        return Reason.TRUNCATED
    if record.finish == "tool_calls":
        return Reason.TOOLS
    return None


def exchange(record: Inference) -> Exchange | Reason:
    """The conversation and its answer as the record holds them."""
    try:
        request, response = orjson.loads(record.request or ""), orjson.loads(record.response or "")
    except orjson.JSONDecodeError:
        return Reason.UNREADABLE
    if type(request) is not dict or type(response) is not dict:
        return Reason.UNREADABLE
    if request.get("truncated") or response.get("truncated"):
        return Reason.TRUNCATED
    if record.endpoint == "chat":
        said, answer = messages(request.get("messages")), _chosen(response)
    elif record.endpoint == "responses":
        said, answer = _input(request), _output(response)
    else:
        return Reason.NOT_CHAT
    if isinstance(said, Reason):
        return said
    if isinstance(answer, Reason):
        return answer
    wrong = disorder(said)
    if wrong is not None:
        return wrong
    return Exchange(prompt=said, answer=answer) if answer.strip() else Reason.EMPTY


def messages(value: Any) -> tuple[Message, ...] | Reason:
    """Messages as an OpenAI client sends them."""
    if type(value) is not list or not value:
        return Reason.UNREADABLE
    found: list[Message] = []
    for each in value:
        if type(each) is not dict or type(each.get("role")) is not str:
            return Reason.UNREADABLE
        if each.get("tool_calls") or each.get("function_call") or each["role"] in _TOOLS:
            return Reason.TOOLS
        content = text(each.get("content"))
        if isinstance(content, Reason):
            return content
        found.append(Message(role=each["role"], content=content))
    return tuple(found)


def disorder(said: Sequence[Message]) -> Reason | None:
    """Why a conversation cannot be learnt from: the system speaks first if at all, then users and assistants take
    turns, and a user comes last. Other orders are served, but not every chat template and no trainer takes them."""
    turns = [each.role for each in said if each.role not in _SYSTEM]
    leading = len(said) - len(turns)
    if any(each.role in _SYSTEM for each in said[leading:]):
        return Reason.ROLES
    if len(turns) % 2 == 0 or any(role != ("user", "assistant")[place % 2] for place, role in enumerate(turns)):
        return Reason.ROLES
    return None if said[-1].content.strip() else Reason.EMPTY


def text(content: Any) -> str | Reason:
    """The text of a message's content: a string, parts of text, or nothing."""
    if type(content) is str:
        return content
    if content is None:
        return ""
    if type(content) is not list:
        return Reason.UNREADABLE
    pieces: list[str] = []
    for part in content:
        if type(part) is str:
            pieces.append(part)
        elif type(part) is dict and part.get("type") in _TEXT_PARTS and type(part.get("text")) is str:
            pieces.append(part["text"])
        else:
            return Reason.MEDIA
    return "".join(pieces)


def _chosen(response: dict[str, Any]) -> str | Reason:
    choices = response.get("choices")
    if type(choices) is not list or not choices or type(choices[0]) is not dict:
        return Reason.UNREADABLE
    if len(choices) > 1:
        return Reason.SEVERAL_ANSWERS
    message = choices[0].get("message")
    if type(message) is not dict:
        return Reason.UNREADABLE
    if message.get("tool_calls"):
        return Reason.TOOLS
    return text(message.get("content"))


def _input(request: dict[str, Any]) -> tuple[Message, ...] | Reason:
    """A Responses request's conversation, its instructions first."""
    value = request.get("input")
    if type(value) is str:
        said: tuple[Message, ...] | Reason = (Message(role="user", content=value),)
    elif type(value) is list and any(type(each) is dict and "role" not in each for each in value):
        said = Reason.TOOLS
    else:
        said = messages(value)
    told = request.get("instructions")
    if type(told) is str and told and not isinstance(said, Reason):
        return (Message(role="system", content=told), *said)
    return said


def _output(response: dict[str, Any]) -> str | Reason:
    """A Responses answer: its one message. Reasoning is no part of it."""
    items = response.get("output")
    if type(items) is not list:
        return Reason.UNREADABLE
    kinds = [each.get("type") if type(each) is dict else None for each in items]
    if any(kind not in ("message", "reasoning") for kind in kinds):
        return Reason.TOOLS
    if kinds.count("message") != 1:
        return Reason.SEVERAL_ANSWERS if kinds.count("message") else Reason.EMPTY
    return text(items[kinds.index("message")].get("content"))
