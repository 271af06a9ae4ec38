"""From the bytes of a request to a `Call`: one JSON parse, one walk over the fields. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.api.openai import fields, media
from gateway.errors import BadField, BadJson
from gateway.values import Call, Endpoint, Tags

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_DEPTH_MAX = 128  # what follows walks the document by recursion, and so does the engine
_TOKENS_UNSAID = 1024  # reserved for an answer whose length the caller left open; settled to what was used


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the request's head says, as far as inference cares."""

    bearer: bytes = b""
    request_id: bytes = b""
    retry_count: int = 0
    conversation: str = ""
    arm: str = ""


def head(headers: Collection[tuple[bytes, bytes]]) -> Head:
    """Read the head of an ASGI scope. Odd values are dropped, never errors: they are hints."""
    bearer = request_id = b""
    retry_count, conversation, arm = 0, "", ""
    for name, value in headers:
        if name == b"authorization":
            bearer = value
        elif name == b"x-request-id":
            request_id = value if _REQUEST_ID.match(value) else b""
        elif name == b"x-stainless-retry-count":
            retry_count = int(value) if value.isdigit() and len(value) < 4 else 0
        elif name == b"x-graftline-conversation":
            conversation = value[:256].decode("latin-1")
        elif name == b"x-graftline-arm":
            arm = value[:256].decode("latin-1")
    return Head(bearer=bearer, request_id=request_id, retry_count=retry_count, conversation=conversation, arm=arm)


def parse(
    endpoint: Endpoint, raw: bytes, head: Head, request_id: str, bounds: fields.Bounds, hosts: Collection[str]
) -> Call:
    """Understand a request body. Raises `BadJson`, `UnknownField`, `BadField`."""
    document = _object(raw)
    fields.check(endpoint, document, bounds)
    model = document.pop("model", None)
    if type(model) is not str or not model:
        raise BadField("You must provide a model parameter.", param="model", code="missing_required_parameter")
    for name in _NEEDED[endpoint]:
        if document.get(name) is None:
            raise BadField(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if endpoint == "chat":
        media.check(document["messages"], hosts)
    elif endpoint == "responses":
        media.check(document["input"], hosts, "input")
    tags = _tags(document, head)
    if endpoint == "responses":
        document["store"] = False  # the engine keeps no answers; our own store does
    stream = document.get("stream") is True
    wants_usage = False
    if stream and endpoint in ("chat", "completions"):
        wants_usage = (document.get("stream_options") or {}).get("include_usage") is True
        document["stream_options"] = {"include_usage": True}
    else:
        document.pop("stream_options", None)
    return Call(
        endpoint=endpoint,
        model=model,
        document=document,
        stream=stream,
        wants_usage=wants_usage,
        tokens_max=_tokens_max(document, len(raw)),
        open_ended=not any(document.get(name) for name in _LIMITS),
        tags=tags,
        bearer=head.bearer,
        request_id=request_id,
    )


_NEEDED: dict[Endpoint, tuple[str, ...]] = {
    "chat": ("messages",),
    "completions": ("prompt",),
    "responses": ("input",),
    "embeddings": ("input",),
}


_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadJson(f"We could not parse the JSON body of your request: {error}.") from None
    if type(document) is not dict:
        raise BadJson("The body of your request must be a JSON object.")
    if raw.count(b"[") + raw.count(b"{") > _DEPTH_MAX and _deeper(document, _DEPTH_MAX):
        raise BadJson(f"The body of your request is nested more than {_DEPTH_MAX} levels deep.")
    return document


def _deeper(document: Any, levels: int) -> bool:
    """Whether there is more than so many levels of arrays and objects. Walks level by level, so it needs no stack."""
    level = [document]
    for _ in range(levels):
        level = [
            part
            for value in level
            for part in (value.values() if type(value) is dict else value)
            if type(part) is dict or type(part) is list
        ]
        if not level:
            return False
    return True


def _tags(document: dict[str, Any], head: Head) -> Tags:
    metadata = document.pop("metadata", None) or {}
    user = document.pop("user", None)
    user = document.pop("safety_identifier", None) or user or ""
    for name in ("prompt_cache_key", "prompt_cache_retention", "service_tier", "modalities", "verbosity"):
        document.pop(name, None)
    return Tags(
        user=user,
        conversation=metadata.get("conversation_id") or head.conversation,
        metadata=metadata,
        store=document.pop("store", None),
        retry_count=head.retry_count,
        arm=head.arm,
    )


def _tokens_max(document: dict[str, Any], size: int) -> int:
    """Upper guess of what the request may use: about four bytes a prompt token, every answer to its limit."""
    limit = next((document[name] for name in _LIMITS if document.get(name)), _TOKENS_UNSAID)
    answers = max(document.get("n") or 1, document.get("best_of") or 1)
    prompt = document.get("prompt")
    if type(prompt) is list and prompt and type(prompt[0]) is not int:
        answers *= len(prompt)
    return size // 4 + int(limit) * answers
