"""From a draft to an `Inference` record: answers put together, media replaced by their digests, text redacted. Pure."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import re
from collections.abc import Iterator
from typing import Any

import orjson

from adapters.experiments.values import Unit
from gateway.capture.draft import Draft
from monitoring.records.events import Exposure, Inference, uuid7
from monitoring.safety.redact import redact, redact_json

#: A data URL as content parts hold it; a text that merely begins with "data:" is a text.
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*,")
#: A body that was cut still says whose it is.
_ID = re.compile(rb'"id":"([^"\\]{1,200})"')


def compose(draft: Draft, base_digest: str, bytes_max: int = 1 << 20, secret: bytes = b"") -> Inference:
    """The record of one request. Bodies are kept only where the key's policy and the caller allow it, and each up to
    `bytes_max`; under the policy `off` nothing that the caller said is. `secret` keys the pseudonyms of callers'
    users, which stay the same from request to request."""
    call, key, target = draft.call, draft.key, draft.target
    policy = key.capture if key else "metadata"
    if policy == "full" and call is not None and call.tags.store is False:
        policy = "metadata"
    answer = _answer(draft)
    usage = _usage(draft, answer)
    full = policy == "full"
    tags = call.tags if call and policy != "off" else None
    return Inference(
        id=uuid7(),
        completion_id=str(answer.get("id") or ""),
        request_id=draft.request_id,
        tenant=key.tenant if key else "",
        key_id=key.id if key and not draft.shadows else "",
        endpoint=draft.endpoint,
        model=call.model[:200] if call else "",
        adapter=target.adapter if target else "",
        digest=target.digest if target else "",
        base_digest=base_digest,
        replica=draft.replica,
        arm=draft.met.assigned.arm.name if draft.met else draft.arm,
        experiment=draft.met.running.plan.experiment if draft.met else "",
        started_at=draft.started_at,
        first_byte_ms=_ms(draft, draft.first_byte),
        first_token_ms=_ms(draft, draft.first_token),
        last_token_ms=_ms(draft, draft.last_token),
        total_ms=_ms(draft, draft.ended) or 0.0,
        status=draft.status,
        error=draft.error,
        finish=_finish(answer),
        incomplete=draft.incomplete,
        stream=draft.streamed,
        attempts=draft.attempts,
        retry_count=call.tags.retry_count if call else 0,
        prompt_tokens=usage[0],
        completion_tokens=usage[1],
        cached_tokens=usage[2],
        user=pseudonym(tags.user, secret) if tags else "",
        conversation=pseudonym(tags.conversation, secret) if tags else "",
        metadata={k: redact(v).text for k, v in tags.metadata.items()} if tags else {},
        captured=policy,
        stored=bool(tags and tags.store and full),
        request=_request(draft.raw, bytes_max) if full and draft.raw else None,
        response=_response(answer, draft) if full and answer else None,
    )


def exposure(draft: Draft, secret: bytes = b"") -> Exposure:
    """That the draft's request met an arm. Under the policy `off` the unit is a keyed hash, whatever it looks like."""
    met, key, call = draft.met, draft.key, draft.call
    assert met is not None
    assert key is not None
    assert call is not None
    digests = met.kind is Unit.REQUEST or met.kind is Unit.KEY  # names of our own
    said = key.capture != "off"
    metadata = call.tags.metadata if said else {}
    return Exposure(
        id=uuid7(),
        at=draft.started_at,
        tenant=key.tenant,
        experiment=met.running.plan.experiment,
        alias=met.running.alias,
        unit=met.unit if digests else pseudonym(met.unit, secret) if said else keyed(met.unit, secret),
        unit_kind=met.kind.value,
        arm=met.assigned.arm.name,
        digest=met.target.digest,
        propensity=met.assigned.propensity,
        bucket=met.bucket,
        request_id=draft.request_id,
        completion_id=f"chatcmpl-{draft.wire_id}1" if draft.endpoint == "chat" else "",
        tags={tag: redact(metadata[tag]).text for tag in met.running.tags if tag in metadata},
    )


def pseudonym(name: str, secret: bytes) -> str:
    """A name as it is, unless it would have to be redacted: then a keyed hash, so that a user who is known by an
    e-mail address can still be told from others, and found again by whoever has the secret."""
    if not name or redact(name).text == name:
        return name
    return keyed(name, secret)


def keyed(name: str, secret: bytes) -> str:
    """A name that only whoever has the secret finds again."""
    return "hmac:" + hmac.new(secret, name.encode(), hashlib.sha256).hexdigest()[:32]


def _ms(draft: Draft, moment: float) -> float | None:
    return round((moment - draft.started) * 1e3, 3) if moment else None


def _request(raw: bytes, bytes_max: int) -> str:
    """The request as it came; one that is no JSON, or nested beyond reason, by its beginning."""
    try:
        document = redact_json(_without_media(orjson.loads(raw)))
        text = orjson.dumps(document).decode()
    except (TypeError, ValueError, RecursionError):
        return redact(raw[:4096].decode("utf-8", "replace")).text
    if len(text) <= bytes_max:
        return text
    names = document if type(document) is dict else {}
    kept = {name: value for name, value in names.items() if type(value) in (str, int, float, bool) and name != "prompt"}
    return orjson.dumps(kept | {"truncated": True, "bytes": len(raw)}).decode()


def _response(answer: dict[str, Any], draft: Draft) -> str:
    if draft.truncated:
        answer = answer | {"truncated": True}
    return orjson.dumps(redact_json(answer)).decode()


def _answer(draft: Draft) -> dict[str, Any]:
    """The answer as one document, whether it was streamed or not."""
    data = b"".join(draft.answer)
    if not data or draft.status != 200:
        return {}
    if draft.streamed:
        return _joined(data)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = _ID.search(data)
        return {"id": found[1].decode("utf-8", "replace")} if found else {}
    if draft.endpoint == "embeddings":
        document.pop("data", None)
    return document if type(document) is dict else {}


def _joined(data: bytes) -> dict[str, Any]:
    """Put the pieces of a stream together, choice by choice."""
    joined: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in _events(data):
        try:
            part = orjson.loads(event)
        except orjson.JSONDecodeError:
            continue
        if "response" in part:  # the last event of a Responses stream holds the whole
            joined = part["response"]
            continue
        for name in ("id", "object", "created", "model"):
            joined.setdefault(name, part.get(name))
        for piece in part.get("choices") or ():
            _add(choices.setdefault(piece.get("index", 0), {"index": piece.get("index", 0)}), piece)
    if choices:
        joined["choices"] = [choices[i] for i in sorted(choices)]
    return joined


def _events(data: bytes) -> Iterator[bytes]:
    """The JSON of every data event, in order, without the end mark."""
    for event in data.split(b"\n\n"):
        at = event.find(b"data: ")
        if at >= 0 and event[at:] != b"data: [DONE]":
            yield event[at + 6 :]


def _add(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    delta = piece.get("delta")
    if delta is not None:
        message = choice.setdefault("message", {"role": "assistant", "content": ""})
        message["content"] += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            _add_tool_call(message.setdefault("tool_calls", []), call)
    elif piece.get("text"):
        choice["text"] = choice.get("text", "") + piece["text"]
    for name, values in (piece.get("logprobs") or {}).items():  # a list for each token, or lists of all their parts
        if type(values) is list:
            choice.setdefault("logprobs", {}).setdefault(name, []).extend(values)
    if piece.get("finish_reason"):
        choice["finish_reason"] = piece["finish_reason"]


def _add_tool_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    index = piece.get("index", 0)
    while len(calls) <= index < 256:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    if index >= len(calls):
        return
    call, function = calls[index], piece.get("function") or {}
    call["id"] = call["id"] or piece.get("id") or ""
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""


def _finish(answer: dict[str, Any]) -> str:
    choices = answer.get("choices")
    if choices:
        return str(choices[0].get("finish_reason") or "")
    return str(answer.get("status") or "")


def _usage(draft: Draft, answer: dict[str, Any]) -> tuple[int, int, int]:
    """(prompt, completion, cached) tokens as the engine counted them; zeros where it never said."""
    usage = answer.get("usage")
    if draft.usage:
        with contextlib.suppress(orjson.JSONDecodeError):  # a Responses stream's end is no JSON, but joined above
            usage = orjson.loads(draft.usage).get("usage")
    if type(usage) is not dict:
        return 0, 0, 0
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    prompt = usage.get("prompt_tokens", usage.get("input_tokens")) or 0
    completion = usage.get("completion_tokens", usage.get("output_tokens")) or 0
    return int(prompt), int(completion), int(details.get("cached_tokens") or 0)


#: Fields of content parts that hold nothing but encoded bytes.
_BLOBS = frozenset({"data", "file_data"})


def _without_media(value: Any) -> Any:
    """Every data: URL and base64 blob replaced by its digest, size and type."""
    if type(value) is dict:
        return {
            name: _blob(part) if name in _BLOBS and type(part) is str and len(part) > 256 else _without_media(part)
            for name, part in value.items()
        }
    if type(value) is list:
        return [_without_media(v) for v in value]
    if type(value) is str and value[:5] == "data:" and (found := _DATA_URL.match(value)):
        return _blob(value[found.end() :], found[1])
    return value


def _blob(payload: str, kind: str = "") -> dict[str, Any]:
    if found := _DATA_URL.match(payload):
        payload, kind = payload[found.end() :], found[1]
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        data = payload.encode()
    return {"media": kind, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
