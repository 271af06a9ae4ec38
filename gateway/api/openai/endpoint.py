"""The request edge of inference: ASGI in, `pipeline.serve`, ASGI out, and a draft for the record on every exit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from gateway import pipeline
from gateway.access.quota import Remaining
from gateway.api import errors
from gateway.api.openai import body, parse
from gateway.api.openai.exchange import Connection, Exchange, Receive, Send, Watch
from gateway.api.openai.fields import Bounds
from gateway.api.protocol import CONNECTION
from gateway.capture.draft import Draft
from gateway.capture.outbox import Outbox
from gateway.engines.sse import END
from gateway.errors import NoCapacity
from gateway.pipeline import Gateway, Opening
from gateway.routing.ids import wire_id
from gateway.shadow import Shadow
from gateway.values import Endpoint

log = logging.getLogger("graftline.edge")

_LEFT = 499  # what nginx calls a request whose client did not wait; never sent, only recorded
_JSON = (b"content-type", b"application/json")
_EVENTS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Inference:
    """The four inference endpoints of one process."""

    def __init__(self, gw: Gateway, outbox: Outbox, watch: Watch, shadow: Shadow) -> None:
        settings = gw.settings
        self._gw, self._outbox, self._watch, self._shadow = gw, outbox, watch, shadow
        self._open = 0
        self._hosts = frozenset(settings.media_hosts)
        self._bounds = Bounds(
            n_max=settings.n_max,
            logprobs_max=settings.logprobs_max,
            grammar_bytes_max=settings.grammar_bytes_max,
            tools_max=settings.tools_max,
        )

    async def __call__(self, scope: Any, receive: Receive, send: Send, endpoint: Endpoint) -> None:
        head = parse.head(scope["headers"])
        wire = wire_id()
        draft = Draft(endpoint, head.request_id.decode() or f"req-{wire}", wire)
        responder = Responder(send, draft)
        exchange: Exchange | None = None
        connection: Connection = scope["extensions"][CONNECTION]
        self._open += 1
        try:
            self._admit()
            pipeline.identify(head.bearer, self._gw, draft)  # before the first byte of a body is taken in
            draft.raw = await body.read(
                receive,
                scope["headers"],
                bytes_max=self._gw.settings.body_bytes_max,
                timeout_s=None if connection.whole else self._gw.settings.body_timeout_s,
            )
            call = draft.call = parse.parse(endpoint, draft.raw, head, draft.request_id, self._bounds, self._hosts)
            exchange = responder.exchange = self._watch.begin(send, connection)
            async with aclosing(pipeline.serve(call, self._gw, draft)) as parts:
                await responder.answer(parts, call.stream)
        except body.ClientLeft:
            draft.error, draft.status = "client_left", _LEFT
        except asyncio.CancelledError:
            if not await _settled(exchange, responder, draft):
                raise
        except errors.OURS as error:
            await responder.fail(error)
        except Exception as error:  # the request edge: one of the three places that may catch everything
            log.exception("request %s failed in an unforeseen way", draft.request_id)
            await responder.fail(error)
        finally:
            self._open -= 1
            if exchange is not None:
                self._watch.end(exchange)
            draft.ended = time.perf_counter()
            self._outbox.put(draft)
            if draft.met is not None:
                self._shadow.put(draft)

    def _admit(self) -> None:
        """Raise `NoCapacity` when more are open than may; those whose body is still arriving count as well."""
        if self._open > self._gw.settings.inflight_max:
            raise NoCapacity(f"{self._gw.settings.inflight_max} requests are running here, which is as many as may.")


async def _settled(exchange: Exchange | None, responder: Responder, draft: Draft) -> bool:
    """Whether a cancellation was our own doing, and is thereby an outcome; one from outside goes on."""
    task = asyncio.current_task()
    if exchange is None or task is None or not (exchange.client_left or exchange.fault):
        return False
    task.uncancel()
    if exchange.fault is not None:
        await responder.fail(exchange.fault)
        return True
    if draft.streamed and not draft.incomplete:
        return True  # it had all that it asked for: some clients close the connection at `[DONE]`
    draft.error, draft.incomplete = "client_left", True
    draft.status = draft.status or _LEFT
    return True


class Responder:
    """Sends one answer and knows whether it has begun."""

    __slots__ = ("_begun", "_draft", "_send", "exchange")

    def __init__(self, send: Send, draft: Draft) -> None:
        self._send, self._draft, self._begun = send, draft, False
        self.exchange: Exchange | None = None

    async def answer(self, parts: AsyncIterator[Opening | bytes], stream: bool) -> None:
        """The head with the first bytes, then the rest as it comes."""
        opening = await anext(parts)
        assert isinstance(opening, Opening)
        assert self.exchange is not None
        self._draft.status = 200
        if not stream:
            whole = await anext(parts)
            await self._start(200, [_JSON, (b"content-length", b"%d" % len(whole)), *self._headers(opening)])  # type: ignore[arg-type]
            await self._write(whole, more=False)
            return
        loop = asyncio.get_running_loop()
        await self._start(200, [*_EVENTS, *self._headers(opening)])
        self.exchange.streaming = True
        async for part in parts:
            self.exchange.moved = loop.time()
            await self._write(part, more=True)
            self.exchange.moved = loop.time()
        await self._write(b"", more=False)

    async def fail(self, error: Exception) -> None:
        """The error as a status where that is still possible, as an event in the stream where it is not."""
        draft = self._draft
        code = getattr(error, "code", "internal_error")
        draft.error = code
        if self._begun:
            draft.incomplete = True
            await self._write(errors.event(error) + END, more=False)
            return
        draft.status, _ = errors.status(error)
        data = errors.body(error)
        close = [(b"connection", b"close")] if draft.status in (408, 413) else []
        await self._start(
            draft.status,
            [
                _JSON,
                (b"content-length", b"%d" % len(data)),
                *self._headers(None),
                *errors.headers(error),
                *close,
            ],
        )
        await self._write(data, more=False)

    async def _start(self, status: int, headers: list[errors.Header]) -> None:
        self._begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, data: object, *, more: bool) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.sending = True
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        if exchange is not None:
            exchange.sending = False

    def _headers(self, opening: Opening | None) -> list[errors.Header]:
        draft = self._draft
        found = [
            (b"x-request-id", draft.request_id.encode()),
            (b"openai-processing-ms", b"%d" % ((time.perf_counter() - draft.started) * 1e3)),
        ]
        if opening is None:
            return found if draft.left is None else found + _rate_limits(draft.left)
        found.append((b"x-graftline-adapter", opening.target.label.encode()))
        found.append((b"x-graftline-replica", opening.replica.encode()))
        if draft.met is not None and draft.met.analysed:
            found.append((b"x-graftline-experiment", draft.met.running.plan.experiment.encode()))
            found.append((b"x-graftline-arm", draft.met.assigned.arm.name.encode()))
        elif draft.arm:
            found.append((b"x-graftline-arm", draft.arm.encode("latin-1", "replace")))
        if draft.queued_s:
            found.append((b"x-graftline-queued-ms", b"%d" % (draft.queued_s * 1e3)))
        if opening.fallback:
            found.append((b"x-graftline-fallback", opening.fallback.encode()))
        if opening.remaining is not None:
            found.extend(_rate_limits(opening.remaining))
        return found


def _rate_limits(left: Remaining) -> list[errors.Header]:
    """OpenAI's rate-limit headers, for the limits that the key has."""
    found: list[errors.Header] = []
    rows = (
        (b"requests", left.requests_limit, left.requests, left.requests_reset_s),
        (b"tokens", left.tokens_limit, left.tokens, left.tokens_reset_s),
    )
    for name, limit, remaining, reset_s in rows:
        if limit is not None and remaining is not None:
            found.append((b"x-ratelimit-limit-" + name, b"%d" % limit))
            found.append((b"x-ratelimit-remaining-" + name, b"%d" % remaining))
            found.append((b"x-ratelimit-reset-" + name, _duration(reset_s)))
    return found


def _duration(seconds: float) -> bytes:
    """OpenAI's spelling: 12ms, 3.5s, 6m0s."""
    if seconds < 1:
        return b"%dms" % (seconds * 1e3)
    if seconds < 60:
        return f"{seconds:.3g}s".encode()
    return b"%dm%ds" % (seconds // 60, seconds % 60)
