"""The one place where parts are joined: by plain constructor calls, so that tests can replace any of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.access.ledger import Ledger
from gateway.api.control.caller import Plane
from gateway.api.control.routes import control_app
from gateway.api.health import Health
from gateway.api.openai.endpoint import Inference
from gateway.api.openai.exchange import Watch
from gateway.api.root import Root
from gateway.capture.meters import Meters
from gateway.capture.outbox import Outbox
from gateway.control import Control, open_control, pseudonym_secret
from gateway.engines.process.devices import CPU_LORAS
from gateway.engines.vllm import Vllm
from gateway.loops import every
from gateway.pipeline import Gateway
from gateway.poisons import Poisons
from gateway.routing.fairness import Rules, share
from gateway.routing.replicas import Replicas
from gateway.routing.store import Beat
from gateway.routing.watcher import Source, Watcher
from gateway.settings import Settings
from gateway.shadow import Shadow
from monitoring.records.spool import Spool
from monitoring.records.sql import SqlRecords
from monitoring.telemetry.shared import Metrics

log = logging.getLogger("graftline")

HEALTH_EVERY_S = 0.5
BEAT_EVERY_S = 0.25
SHADOW_EVERY_S = 0.05
POISON_EVERY_S = 0.1  # a version that gives NaN is to be withdrawn within a second
LEDGER_EVERY_S = 5.0
SLOTS_DEFAULT = CPU_LORAS  # of engines that run elsewhere and whose `max_loras` nobody told us


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One gateway process: its ASGI app, and what must run beside it."""

    app: Root
    gateway: Gateway
    outbox: Outbox
    watch: Watch
    shadow: Shadow
    control: Control
    plane: Plane
    records: SqlRecords
    metrics: Metrics
    name: str

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything beside the HTTP server: snapshot, capture, health checks, signs of life."""
        gw = self.gateway
        async with AsyncExitStack() as stack:
            stack.callback(self.metrics.close)
            self.outbox.start()
            stack.callback(self.outbox.close)
            stack.callback(self.plane.spool.close)
            stack.callback(self.records.close)
            gw.watcher.start()
            stack.callback(gw.watcher.stop)
            stack.callback(gw.ledger.close)
            stack.push_async_callback(gw.replicas.close)
            await gw.replicas.check()
            loops = (
                every("health", HEALTH_EVERY_S, gw.replicas.check, timeout_s=10, metrics=self.metrics),
                every("watch", 1.0, self.watch.tick, timeout_s=10, metrics=self.metrics),
                every("ledger", LEDGER_EVERY_S, self._flush, timeout_s=10, metrics=self.metrics),
                every("beat", BEAT_EVERY_S, self._beat, timeout_s=10, metrics=self.metrics),
                every(
                    "shadow",
                    SHADOW_EVERY_S,
                    self.shadow.step,
                    timeout_s=gw.settings.request_timeout_s,
                    metrics=self.metrics,
                ),
                every("poison", POISON_EVERY_S, self._tell, timeout_s=10, metrics=self.metrics),
            )
            await stack.enter_async_context(beside(*loops))
            yield

    async def _flush(self) -> None:
        """Spent budgets reach the disk, so that a power loss forgets a few seconds of them at most."""
        await asyncio.to_thread(self.gateway.ledger.flush)

    async def _tell(self) -> None:
        """What gave NaN becomes rows that the fleet acts on."""
        if self.gateway.poisons.waiting:
            await asyncio.to_thread(self.gateway.poisons.flush)

    async def _beat(self) -> None:
        gw = self.gateway
        gauge = self.metrics.gauge
        gauge("graftline_inflight").set(len(self.watch))
        gauge("graftline_snapshot_age_seconds").set(gw.watcher.age_s)
        gauge("graftline_records_waiting").set(self.outbox.waiting)
        gw.replicas.follow(gw.watcher.snapshot)  # who waits on a replica that is out learns of it without a new request
        for replica, waiting in gw.replicas.waiting.items():
            gauge("graftline_slot_queue_depth", replica=replica).set(waiting)
        gauge("graftline_pins_ignored").set(len(gw.replicas.pins_ignored))
        beat = Beat(
            gateway=self.name,
            at=time.time(),
            revision=gw.watcher.snapshot.revision,
            inflight=dict(gw.replicas.by_name),
            by_replica=gw.replicas.by_replica,
        )
        await asyncio.to_thread(self.control.fleet.beat, beat)


def build(settings: Settings, *, worker: int = 0, engines: Mapping[str, Vllm] | None = None) -> Serving:
    """Join one gateway process. `worker` is its number among `settings.workers`."""
    name = f"gateway-{worker}"
    control = open_control(settings)
    metrics = Metrics(settings.metrics, name)

    def waited(replica: str, seconds: float) -> None:
        metrics.histogram("graftline_slot_wait_seconds", replica=replica).observe(seconds)

    poisons = Poisons(control.fleet.poison, f"{name}@{os.uname().nodename}", metrics)
    secret = pseudonym_secret(settings)
    outbox = _outbox(settings, control, metrics, name, secret)
    gateway = Gateway(
        settings=settings,
        watcher=Watcher(_source(control), poll_s=settings.snapshot_poll_ms / 1e3),
        replicas=Replicas(
            engines or connect_engines(settings),
            settings.inflight_max,
            rules=_rules(settings),
            on_poison=poisons.report,
            on_wait=waited,
        ),
        ledger=Ledger(settings.home.absolute() / "quota.ledger", worker, settings.workers),
        base_digest=control.base.digest,
        poisons=poisons,
        expose=outbox.expose,
    )
    watch = _watch(settings)
    records = SqlRecords(settings.records_url or settings.home.absolute() / "records")
    plane = Plane(
        gateway=gateway,
        control=control,
        settings=settings,
        records=records,
        spool=Spool(settings.spool, f"{name}-control"),
        metrics=metrics,
        secret=secret,
    )
    shadow = Shadow(gateway, outbox.put, metrics, waiting_max=settings.shadow_waiting_max)
    app = Root(
        inference=Inference(gateway, outbox, watch, shadow),
        health=Health(gateway, outbox, settings),
        control=control_app(plane),
        settings=settings,
    )
    return Serving(
        app=app,
        gateway=gateway,
        outbox=outbox,
        watch=watch,
        shadow=shadow,
        control=control,
        plane=plane,
        records=records,
        metrics=metrics,
        name=f"{name}@{os.uname().nodename}",
    )


def _outbox(settings: Settings, control: Control, metrics: Metrics, name: str, secret: bytes) -> Outbox:
    return Outbox(
        Spool(settings.spool, name),
        Meters(metrics),
        base_digest=control.base.digest,
        records_max=settings.outbox_records_max,
        flush_s=settings.outbox_flush_ms / 1e3,
        bytes_max=settings.outbox_bytes_max,
        capture_bytes_max=settings.capture_bytes_max,
        secret=secret,
    )


def _watch(settings: Settings) -> Watch:
    return Watch(
        request_timeout_s=settings.request_timeout_s,
        send_timeout_s=settings.send_timeout_s,
        keep_alive_s=settings.keep_alive_s,
    )


def _source(control: Control) -> Source:
    """What the routing snapshot is made from."""
    return Source(
        database=control.database,
        keys=control.keys,
        adapters=control.adapters,
        fleet=control.fleet,
        experiments=control.experiments,
        base_name=control.base.name,
        base_created=control.base.created,
    )


def _rules(settings: Settings) -> Rules:
    """Each worker takes its share of an engine's slots, since it does not know what the others have in flight."""
    return Rules(
        slots=share(settings.engine.max_loras or SLOTS_DEFAULT, settings.workers),
        turn_s=settings.slot_turn_s,
        turn_tokens=settings.slot_turn_tokens,
        queue_max=settings.slot_queue_max,
        queue_timeout_s=settings.slot_queue_timeout_s,
    )


def connect_engines(settings: Settings) -> dict[str, Vllm]:
    """One client per replica."""
    return {name: Vllm(name, url) for name, url in settings.replicas.items()}


@asynccontextmanager
async def beside(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run loops in one task group for as long as the block lasts."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
