"""A stored chat completion as OpenAI's SDK reads it, from its record. Pure.

Texts are as the record has them: redacted. Media are named by their digest.
"""

from __future__ import annotations

import json
from typing import Any

from monitoring.records.events import Inference

#: What the request asked for, told again.
_ASKED = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
)


def completion(one: Inference) -> dict[str, Any]:
    """The answer, whether it was streamed or not; one that broke off has no `finish_reason`."""
    answer, asked = _object(one.response), _object(one.request)
    return {
        "id": one.completion_id,
        "object": "chat.completion",
        "created": answer.get("created") or int(one.started_at),
        "model": answer.get("model") or one.model,
        "choices": [_choice(each) for each in _list(answer.get("choices"))],
        "usage": answer.get("usage") or _usage(one),
        "metadata": dict(one.metadata),
        "request_id": one.request_id,
        "input_user": one.user or None,
        **{name: asked.get(name) for name in _ASKED},
        **{name: answer[name] for name in ("system_fingerprint", "service_tier") if answer.get(name)},
    }


def messages(one: Inference) -> list[dict[str, Any]]:
    """The messages of the request, each with an id of its own."""
    return [
        _message(f"{one.completion_id}-{place}", each)
        for place, each in enumerate(_list(_object(one.request).get("messages")))
        if isinstance(each, dict)
    ]


def _message(name: str, message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = [_part(each) for each in content] if isinstance(content, list) else None
    rest = {key: value for key, value in message.items() if key not in ("id", "content")}
    return {
        "id": name,
        "role": message.get("role"),
        "content": content if isinstance(content, str) else None,
        "content_parts": parts,
        "name": None,
        "refusal": None,
        **rest,
    }


def _part(part: Any) -> Any:
    """A content part; where a URL was replaced by what it held, a name for that."""
    if isinstance(part, dict) and isinstance(image := part.get("image_url"), dict):
        url = image.get("url")
        if isinstance(url, dict):
            return {**part, "image_url": {**image, "url": f"urn:sha256:{url.get('sha256', '')}"}}
    return part


def _choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    message = choice.get("message")
    said = {"role": "assistant", "content": None, "refusal": None} | (message if isinstance(message, dict) else {})
    return {"index": 0, "finish_reason": None, "logprobs": None} | choice | {"message": said}


def _usage(one: Inference) -> dict[str, Any]:
    return {
        "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
        "total_tokens": one.prompt_tokens + one.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": one.cached_tokens},
    }


def _object(text: str | None) -> dict[str, Any]:
    """A record keeps the beginning of what was no JSON: that says nothing here."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
