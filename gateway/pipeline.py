"""The life of one request: the only path to an engine.

    identify → resolve → reserve → meet → place → stream → settle

The first byte is the point of no return. Before it, a failure has a true status and may be tried elsewhere; after it,
a failure is an event in the stream, and is never tried again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from gateway.access.errors import OverQuota
from gateway.access.identify import require, token
from gateway.access.keys import Key, Role
from gateway.access.ledger import Ledger
from gateway.access.quota import Remaining
from gateway.answering import PATHS, begin, framing, pass_on, tokens, whole
from gateway.capture.draft import Draft
from gateway.carry import beneath
from gateway.engines.errors import (
    AdapterMissing,
    EngineError,
    EnginePoisoned,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
)
from gateway.engines.upstream import Answer
from gateway.errors import AdapterDiverged, AdapterUnavailable, EngineFailed, StaleSnapshot
from gateway.poisons import Poisons, may_try_elsewhere
from gateway.routing.marks import cache_salt
from gateway.routing.replicas import Replicas, Seated
from gateway.routing.resolve import resolve
from gateway.routing.retry import Patience
from gateway.routing.snapshot import Snapshot
from gateway.routing.trials import meet, pinned
from gateway.routing.watcher import Watcher
from gateway.settings import Settings
from gateway.values import Call, Hold, Target

ANSWER_BYTES_MAX = 256 << 20
_REFUSAL_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What requests share in one process; joined in `gateway/app.py`."""

    settings: Settings
    watcher: Watcher
    replicas: Replicas
    ledger: Ledger
    poisons: Poisons
    base_digest: str
    expose: Callable[[Draft], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The first thing `serve` yields: who answers, and what is left of the key's quota."""

    target: Target
    replica: str
    fallback: str
    remaining: Remaining | None


async def serve(call: Call, gw: Gateway, draft: Draft) -> AsyncGenerator[Opening | bytes, None]:
    """One `Opening`, then the answer's bytes. Each step may raise the errors named beside it."""
    snapshot, key = identify(call.bearer, gw, draft)  # StaleSnapshot, Unauthenticated, Forbidden
    target = resolve(snapshot, key, call.model)  # UnknownModel
    hold = _reserve(call, gw, draft, key)  # OverQuota
    try:
        if snapshot.running or call.tags.arm:
            target = _meet(call, gw, draft, snapshot, key, target)  # Forbidden, BadField
        async with aclosing(_attempt(call, gw, draft, key, target)) as parts:  # NoCapacity, EngineRefused
            async for part in parts:
                yield part
    finally:
        hold.settle(draft.tokens_used)


def _reserve(call: Call, gw: Gateway, draft: Draft, key: Key) -> Hold:
    """Reserve what the call may use; a guess is never more than the key may use in a minute, or it could never run."""
    limit = key.limits.tokens_per_min
    tokens = min(call.tokens_max, limit) if call.open_ended and limit is not None else call.tokens_max
    try:
        return gw.ledger.reserve(key, tokens)
    except OverQuota:
        draft.left = gw.ledger.remaining(key)
        raise


def _meet(call: Call, gw: Gateway, draft: Draft, snapshot: Snapshot, key: Key, target: Target) -> Target:
    """The arm's target where an experiment has the request; that it met the arm is on its way before the request is."""
    found = snapshot.running.get(call.model)
    if call.tags.arm:
        draft.arm = call.tags.arm
        return pinned(found, key, call.tags.arm)
    if found is None or (met := meet(found, key, call, draft.raw)) is None:
        return target
    draft.met = met
    gw.expose(draft)
    return met.target


def identify(bearer: bytes, gw: Gateway, draft: Draft) -> tuple[Snapshot, Key]:
    """Who calls. Asked before the body is read and again once it is there, for that may have taken its time."""
    snapshot = current(gw)
    key = draft.key = snapshot.keyring.find(token(bearer), draft.started_at)
    require(key, Role.USER)
    return snapshot, key


def current(gw: Gateway) -> Snapshot:
    """The routing snapshot; raises `StaleSnapshot` when it is too old to vouch for what can be revoked."""
    if gw.watcher.age_s > gw.settings.snapshot_age_max_s:
        raise StaleSnapshot(
            f"Control state was last seen {gw.watcher.age_s:.0f} s ago; keys cannot be vouched for any more."
        )
    return gw.watcher.snapshot


async def _attempt(
    call: Call, gw: Gateway, draft: Draft, key: Key, target: Target
) -> AsyncGenerator[Opening | bytes, None]:
    """Try replicas until one gives a first byte, then pass its answer on."""
    patience, asked = Patience(adapter_wait_s=gw.settings.adapter_wait_s), target
    while True:
        seat, target, fallback = await _place(gw, call, asked, patience)
        draft.attempts += 1
        draft.queued_s += seat.queued_s
        draft.target, draft.replica, draft.fallback = target, seat.replica, fallback
        answer: Answer | None = None
        try:
            answer = await ask(seat, call, key, target, gw, draft)
            reads, stream = aiter(answer), framing(call, target, gw)
            first = await begin(reads, stream, seat, call) if call.stream else await answer.read(ANSWER_BYTES_MAX)
        except (EngineError, StopAsyncIteration) as error:
            if answer is not None:
                answer.close()
            seat.leave()
            _judge(error, gw, seat, target, patience)  # raises what cannot be tried again
            continue
        except BaseException:
            draft.tokens_used = tokens(b"", call, draft)  # the client left, or time is over: the engine had begun
            if answer is not None:
                answer.close()
            seat.leave()
            raise
        break
    try:
        draft.first_byte = time.perf_counter()
        remaining = None if key.limits.unlimited else gw.ledger.remaining(key)
        yield Opening(target=target, replica=seat.replica, fallback=fallback, remaining=remaining)
        if call.stream:
            async with aclosing(pass_on(first, reads, stream, seat, call, gw, draft)) as chunks:
                async for chunk in chunks:
                    yield chunk
        else:
            yield whole(first, call, target, gw, draft)
    except EnginePoisoned as error:  # within a stream
        _poisoned(error, gw, seat, target)
        raise
    finally:
        answer.close()
        seat.leave()


async def _place(gw: Gateway, call: Call, target: Target, patience: Patience) -> tuple[Seated, Target, str]:
    """A seat for the target, or for what its alias declares instead; waits a while for an adapter to come back."""
    while True:
        snapshot = gw.watcher.snapshot
        try:
            if gw.poisons.blocked(target):
                raise _diverged(target)
            return await gw.replicas.seat(snapshot, target, patience.tried, call.tokens_max), target, ""
        except (AdapterUnavailable, AdapterDiverged) as error:
            other, why = _instead(snapshot, target)
            if other is not None and gw.replicas.serves(snapshot, other):
                return await gw.replicas.seat(snapshot, other, patience.tried, call.tokens_max), other, why
            if isinstance(error, AdapterDiverged):
                raise
            await patience.wait()  # AdapterUnavailable when it has waited long enough


def _instead(snapshot: Snapshot, target: Target) -> tuple[Target | None, str]:
    if target.on_unavailable == "previous":
        return target.previous, "previous"
    if target.on_unavailable == "base":
        return snapshot.base, "base"
    return None, ""


async def ask(seat: Seated, call: Call, key: Key, target: Target, gw: Gateway, draft: Draft) -> Answer:
    """Send the request; an answer that is not 200 becomes the error that it is."""
    document = beneath(call.document, target.carried, call.endpoint) if target.carried else call.document
    document["model"] = target.engine_name
    if call.endpoint != "embeddings":
        document["cache_salt"] = cache_salt(target.digest or gw.base_digest, key.tenant)
    answer = await seat.engine.generate(
        PATHS[call.endpoint],
        orjson.dumps(document),
        f"{draft.wire_id}{draft.attempts or ''}",
        head_timeout_s=gw.settings.stall_timeout_s if call.stream else gw.settings.request_timeout_s,
        stall_timeout_s=gw.settings.stall_timeout_s,
    )
    if answer.status != 200:
        body = await answer.read(_REFUSAL_BYTES_MAX)
        raise seat.engine.refusal(answer.status, body, PATHS[call.endpoint])
    return answer


def _judge(
    error: EngineError | StopAsyncIteration, gw: Gateway, seat: Seated, target: Target, patience: Patience
) -> None:
    """Before the first byte: note what the failure says of the replica, and raise unless another try may help."""
    if isinstance(error, AdapterMissing) and target.resident:
        gw.replicas.lacks(seat.replica, target, gw.watcher.snapshot.revision)
        return
    if isinstance(error, EnginePoisoned):
        _poisoned(error, gw, seat, target)
    elif isinstance(error, EngineTimeout) or (isinstance(error, EngineRefused) and not error.retryable):
        raise error
    if isinstance(error, EngineUnreachable):
        gw.replicas.failed(seat.replica)
    if not patience.again(seat.replica):
        raise EngineFailed(
            f"{len(patience.tried)} of the engines failed before the answer began; the last one: {error}",
            retry_after_s=5,
        ) from error


def _poisoned(error: EnginePoisoned, gw: Gateway, seat: Seated, target: Target) -> None:
    """Nobody uses this replica again before it was restarted. Raises `AdapterDiverged` for the version that did it."""
    gw.replicas.poisoned(seat.replica, target, error)
    if not may_try_elsewhere(error, target):
        gw.poisons.block(target)
        raise _diverged(target) from error


def _diverged(target: Target) -> AdapterDiverged:
    return AdapterDiverged(
        f"Adapter version {target.adapter} gave numbers that are not finite, so its answer was stopped. It is being "
        "withdrawn; ask an alias of it again in a moment for the version before, or train this one again."
    )
