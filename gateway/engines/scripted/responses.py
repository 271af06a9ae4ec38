"""The Responses API in vLLM 0.32's words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from gateway.engines.scripted.wording import Asked


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The same request as the chat rules read it."""
    given = body.get("input", "")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    chat = {"messages": messages, "stream": body.get("stream"), "temperature": body.get("temperature")}
    return chat | {"max_tokens": body.get("max_output_tokens"), "top_p": body.get("top_p")}


def whole(asked: Asked, tokens: Sequence[str], finish: str) -> bytes:
    return orjson.dumps(_response(asked, tokens, finish))


def events(asked: Asked, tokens: Sequence[str], finish: str) -> Iterator[bytes]:
    """`response.created` to `response.completed`; no `[DONE]` follows."""
    number = 0

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        document = orjson.dumps({**fields, "sequence_number": number, "type": kind})
        number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), document)

    item = {"id": f"msg_{asked.id}", "content": [], "role": "assistant", "status": "in_progress", "type": "message"}
    place = {"content_index": 0, "item_id": item["id"], "output_index": 0}
    text = "".join(tokens)
    begun = _response(asked, [], "") | {"output": [], "status": "in_progress", "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    yield event("response.output_item.added", item=item, output_index=0)
    for token in tokens:
        if token:
            yield event("response.output_text.delta", **place, delta=token, logprobs=[])
    yield event("response.output_text.done", **place, text=text, logprobs=[])
    done = _response(asked, tokens, finish)
    yield event("response.output_item.done", item=done["output"][0], output_index=0)
    yield event("response.completed", response=done)


def _response(asked: Asked, tokens: Sequence[str], finish: str) -> dict[str, Any]:
    part: dict[str, Any] = {"annotations": [], "text": "".join(tokens), "type": "output_text", "logprobs": None}
    message = {
        "id": f"msg_{asked.id}",
        "content": [part],
        "role": "assistant",
        "status": "completed",
        "type": "message",
    }
    cut = finish == "length"
    return {
        "id": f"resp_{asked.id}",
        "created_at": asked.created,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": None,
        "metadata": None,
        "model": asked.model,
        "object": "response",
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "status": "incomplete" if cut else "completed",
        "usage": {
            "input_tokens": asked.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": len(tokens),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked.prompt_tokens + len(tokens),
        },
        "user": None,
    }
