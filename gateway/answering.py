"""An answer on its way to the client, once an engine has begun it: framed, renamed, counted, never tried again."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

import orjson

from gateway.capture.draft import Draft
from gateway.engines import sse
from gateway.engines.errors import EngineBroke
from gateway.engines.rewrite import stamped, tidied
from gateway.routing.marks import fingerprint
from gateway.routing.replicas import Seated
from gateway.values import Call, Target

if TYPE_CHECKING:
    from gateway.pipeline import Gateway

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
}


def framing(call: Call, target: Target, gw: Gateway) -> sse.Stream:
    return sse.Stream(
        engine_name=target.engine_name,
        model=orjson.dumps(call.model),
        wants_usage=call.wants_usage,
        responses=call.endpoint == "responses",
        fingerprint=fingerprint(gw.base_digest, target.digest),
    )


async def begin(reads: AsyncIterator[bytes], stream: sse.Stream, seat: Seated, call: Call) -> bytes:
    """The first bytes for the client. An engine's head says 200 before it has worked: an error event that comes first
    is a failure like any other, and can be tried elsewhere."""
    while not (out := stream.feed(await anext(reads))):
        if stream.error:
            raise seat.engine.refusal(stream.error_status, stream.error, PATHS[call.endpoint])
    return out


async def pass_on(
    first: bytes, reads: AsyncIterator[bytes], stream: sse.Stream, seat: Seated, call: Call, gw: Gateway, draft: Draft
) -> AsyncGenerator[bytes, None]:
    """A stream's bytes, renamed and framed; a failure from here on is an event in the stream."""
    out, bytes_max = first, gw.settings.capture_bytes_max
    roles_first = call.endpoint != "completions"  # the first event of the others holds no token yet
    draft.streamed = True
    try:
        while True:
            if out:
                now = time.perf_counter()
                if not draft.first_token and (draft.last_token or not roles_first):
                    draft.first_token = now
                draft.last_token = now
                draft.keep(out, bytes_max)
                yield out
            if stream.error:
                raise seat.engine.refusal(stream.error_status, stream.error, PATHS[call.endpoint])
            out = stream.feed(await anext(reads))
    except StopAsyncIteration:
        if not stream.done:
            raise EngineBroke("The engine's answer ended before it was complete.") from None
    finally:
        draft.usage = stream.usage
        draft.first_token = draft.first_token or draft.last_token
        draft.tokens_used = tokens(stream.usage, call, draft)
        draft.incomplete = not stream.done


def whole(body: bytes, call: Call, target: Target, gw: Gateway, draft: Draft) -> bytes:
    """An answer in one piece: the asked name back in, the caller's metadata with it."""
    draft.first_token = draft.last_token = draft.first_byte
    asked = orjson.dumps(call.model)
    body = body.replace(b'"model":"' + target.engine_name.encode() + b'"', b'"model":' + asked, 1)
    if call.tags.metadata and body[:1] == b"{" and call.endpoint == "chat":
        body = b'{"metadata":' + orjson.dumps(call.tags.metadata) + b"," + body[1:]
    if call.endpoint in ("chat", "completions"):
        body = stamped(tidied(body), fingerprint(gw.base_digest, target.digest))
    draft.keep(body, gw.settings.capture_bytes_max)
    if draft.truncated and (at := body.rfind(b'"usage":{')) >= 0:
        draft.usage = b"{" + body[at:]
    draft.tokens_used = tokens(body, call, draft)
    return body


def tokens(data: bytes, call: Call, draft: Draft) -> int:
    """Tokens to settle: what the engine counted, else what was reserved for what was at least begun."""
    at = data.rfind(b'"total_tokens":')
    if at >= 0:
        digits = data[at + 15 : at + 27]
        end = next((i for i, c in enumerate(digits) if not 48 <= c <= 57), len(digits))
        if end:
            return int(digits[:end])
    return min(call.tokens_max, len(draft.raw) // 4 + draft.answer_bytes // 150)
