"""Lays what a version carries beneath what the client said. Pure; the client's own values always win."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.carried import Carried
from gateway.values import Endpoint

_SYSTEM_ROLES = ("system", "developer")
#: The sampling fields that the responses endpoint takes, by the name that they have there.
_RESPONSES = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def beneath(document: Mapping[str, Any], carried: Carried, endpoint: Endpoint) -> dict[str, Any]:
    """A new document with the defaults in it. A field that is null counts as not given, as the engine counts it.

    The input is left as it is: another try may go to another version, which carries other things.
    """
    made = dict(document)
    if endpoint == "embeddings" or not carried:
        return made
    names = _RESPONSES if endpoint == "responses" else {name: name for name in carried.sampling}
    for name, value in carried.sampling.items():
        there = names.get(name)
        if there is not None and not _is_said(made, there) and _can_stand(name, value, made):
            made[there] = value
    if endpoint == "responses":
        if carried.system and made.get("instructions") is None and not _has_system(made.get("input")):
            made["instructions"] = carried.system
        return made  # this endpoint takes no stop strings
    if carried.stop and made.get("stop") is None:
        made["stop"] = list(carried.stop)
    if endpoint == "chat" and carried.system and not _has_system(made["messages"]):
        made["messages"] = [{"role": "system", "content": carried.system}, *made["messages"]]
    return made


def _is_said(document: Mapping[str, Any], name: str) -> bool:
    names = _LIMITS if name in _LIMITS else (name,)
    return any(document.get(other) is not None for other in names)


def _can_stand(name: str, value: float | int, document: Mapping[str, Any]) -> bool:
    """Whether the default agrees with what the client did say: together the engine would refuse them."""
    if name == "max_tokens":
        return bool((document.get("min_tokens") or 0) <= value)
    if name == "temperature" and value == 0:
        return (document.get("n") or 1) == 1 and (document.get("best_of") or 1) == 1  # several greedy answers are one
    return True


def _has_system(messages: Any) -> bool:
    return isinstance(messages, list) and any(
        isinstance(message, dict) and message.get("role") in _SYSTEM_ROLES for message in messages
    )
