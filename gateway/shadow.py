"""The shadow arm of an experiment: asked what the others were asked, after the client has its answer, one at a time.

It is recorded and shown to nobody, counts against no quota and on no bill. What comes while the queue is full is not
mirrored, and counted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from gateway.answering import whole
from gateway.capture.draft import Draft
from gateway.engines.errors import EngineError
from gateway.errors import GatewayError
from gateway.pipeline import ANSWER_BYTES_MAX, Gateway, ask
from gateway.routing.ids import wire_id
from gateway.values import Call, Target
from monitoring.telemetry.shared import Metrics

log = logging.getLogger("graftline.shadow")


class Shadow:
    """One per process. `put` belongs to the serving loop, `step` to a supervised loop beside it."""

    def __init__(self, gw: Gateway, record: Callable[[Draft], None], metrics: Metrics, *, waiting_max: int) -> None:
        self._gw, self._record, self._metrics, self._waiting_max = gw, record, metrics, waiting_max
        self._waiting: deque[Draft] = deque()

    def put(self, draft: Draft) -> None:
        """Mirror an answered request, if its experiment has a shadow; never waits, never raises."""
        if draft.met is None or draft.met.running.shadow is None or draft.status != 200:
            return
        if len(self._waiting) >= self._waiting_max:
            self._count("dropped")
        else:
            self._waiting.append(draft)

    async def step(self) -> None:
        """Mirror the one that waits longest, if there is one."""
        if not self._waiting:
            return
        draft = self._waiting.popleft()
        try:
            await self._mirror(draft)
            self._count("answered")
        except (GatewayError, EngineError) as error:
            self._count("failed")
            log.info("the shadow of request %s failed: %s", draft.request_id, error)

    async def _mirror(self, of: Draft) -> None:
        met, call, key = of.met, of.call, of.key
        assert met is not None
        assert call is not None
        assert key is not None
        target = met.running.shadow
        assert target is not None
        draft = Draft(of.endpoint, f"{of.request_id}.shadow", wire_id())
        draft.call = mirrored = _unstreamed(call)
        draft.key, draft.raw, draft.target, draft.arm, draft.shadows = (
            key,
            of.raw,
            target,
            met.running.shadow_name,
            True,
        )
        try:
            await self._ask(mirrored, target, draft)
        except (GatewayError, EngineError) as error:
            draft.status, draft.error = 502, error.code
            raise
        finally:
            draft.ended = time.perf_counter()
            self._record(draft)

    async def _ask(self, call: Call, target: Target, draft: Draft) -> None:
        gw, key = self._gw, draft.key
        assert key is not None
        seat = await gw.replicas.seat(gw.watcher.snapshot, target, (), call.tokens_max)
        draft.attempts, draft.replica, draft.queued_s = 1, seat.replica, seat.queued_s
        try:
            answer = await ask(seat, call, key, target, gw, draft)
            try:
                body = await answer.read(ANSWER_BYTES_MAX)
            finally:
                answer.close()
            draft.first_byte = time.perf_counter()
            whole(body, call, target, gw, draft)
            draft.status = 200
        finally:
            seat.leave()

    def _count(self, outcome: str) -> None:
        self._metrics.counter("graftline_shadow_requests_total", outcome=outcome).add(1)


def _unstreamed(call: Call) -> Call:
    document = {name: value for name, value in call.document.items() if name not in ("stream", "stream_options")}
    return replace(call, document=document, stream=False, wants_usage=False)
