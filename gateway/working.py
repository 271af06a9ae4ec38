"""The worker: keeps the fleet as it should be, moves records into their database, cleans up. One of them is enough."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

from adapters.checks.probe import Prober
from gateway.app import beside, connect_engines
from gateway.collecting import collect_unneeded
from gateway.control import Control, make_signatures, open_control
from gateway.engines.fleet import Fleet, Means, Terms
from gateway.engines.fleet.book import Book
from gateway.engines.fleet.counting import Counting, ran_by_records
from gateway.engines.fleet.duty import RENEW_EVERY_S, Duty
from gateway.engines.fleet.means import Restart, nobody
from gateway.engines.fleet.patrol import Patrol
from gateway.engines.fleet.probing import Probing
from gateway.engines.fleet.sql import SqlDuties
from gateway.engines.fleet.staging import Staging, memory_folder
from gateway.engines.prober import make_prober
from gateway.engines.process import recycle
from gateway.experimenting import duties
from gateway.experimenting.slots import reserved
from gateway.loops import every
from gateway.saying import Mirroring
from gateway.settings import Settings
from gateway.tuning.running import running_jobs
from monitoring.records.ingest import Ingester
from monitoring.records.retention import drop_before
from monitoring.records.sql import SqlRecords
from monitoring.telemetry.shared import Metrics
from training.files.intake import tidy
from training.probe.client import START_TIMEOUT_S

log = logging.getLogger("graftline")

FLEET_EVERY_S = 0.25
LOOK_EVERY_S = 0.1
PROBE_EVERY_S = 0.05
COUNT_EVERY_S = 1.0
PROBE_SLICE_S = 60.0
INGEST_EVERY_S = 0.2
RETAIN_EVERY_S = 3600.0
COLLECT_EVERY_S = 10.0


async def work(settings: Settings, *, capacity: int, stop: asyncio.Event) -> None:
    """The fleet's loops and the ingester, until `stop` is set. `capacity` is the engines' `max_cpu_loras`."""
    control = open_control(settings)
    metrics = Metrics(settings.metrics, "worker")
    records = SqlRecords(settings.records_url or settings.home.absolute() / "records")
    ingester = Ingester(settings.spool, Mirroring(records))
    means = _means(settings, control, metrics, records, capacity)
    fleet = Fleet(connect_engines(settings), means)
    duty = _duty(means, fleet)
    prober = make_prober(settings, control.base)
    flow = duties.make_flow(settings)
    looks = duties.make_looks(settings, control, records, flow, metrics)
    counting = Counting(fleet.replicas, means, ran_by_records(records, settings.request_timeout_s))

    async def ingest() -> None:
        moved = await asyncio.to_thread(ingester.step)
        flow.emptied()
        metrics.counter("graftline_records_ingested_total").add(moved)
        metrics.gauge("graftline_records_rejected").set(ingester.rejected)

    async def retain() -> None:
        await asyncio.to_thread(control.artifacts.sweep)
        await asyncio.to_thread(tidy, control.files, control.shelves.shelf, now=time.time())
        if settings.records_keep_days is not None:
            await asyncio.to_thread(drop_before, records, now=time.time(), keep_days=settings.records_keep_days)

    collected_at = 0.0

    async def collect() -> None:
        nonlocal collected_at
        engines = {name: replica.engine for name, replica in fleet.replicas.items()}
        if collected_at and time.monotonic() - collected_at < RETAIN_EVERY_S:
            return
        if all(replica.up for replica in fleet.replicas.values()):  # each says what it still needs
            await collect_unneeded(control, settings, engines, dry_run=False)
            collected_at = time.monotonic()

    await duty.renew()
    loops = (
        every("duty", RENEW_EVERY_S, duty.renew, timeout_s=10, metrics=metrics),
        *_fleet_loops(settings, fleet, means, duty, prober),
        every("count", COUNT_EVERY_S, duty.on_duty(counting.step), timeout_s=60, metrics=metrics),
        every("ingest", INGEST_EVERY_S, ingest, timeout_s=300, metrics=metrics),
        every("retain", RETAIN_EVERY_S, retain, timeout_s=600, metrics=metrics),
        every("collect", COLLECT_EVERY_S, duty.on_duty(collect), timeout_s=600, metrics=metrics),
        *duties.loops(settings, control, records, looks, duty, metrics),
    )
    async with beside(*loops), running_jobs(settings, control, metrics):
        log.info("the worker is ready")
        await stop.wait()
    if duty.held:
        await asyncio.to_thread(means.staging.sweep)  # nothing of ours stays in memory
    looks.close()
    await duty.end()
    await ingest()
    if prober is not None:
        await prober.close()
    await fleet.close()
    records.close()
    metrics.close()


def _duty(means: Means, fleet: Fleet) -> Duty:
    owner = f"{os.getpid()}@{os.uname().nodename}/{time.time():.3f}"
    return Duty(means.duties, owner, gained=means.staging.sweep, lost=fleet.forget)


def _fleet_loops(
    settings: Settings, fleet: Fleet, means: Means, duty: Duty, prober: Prober | None
) -> list[Coroutine[Any, Any, None]]:
    metrics = means.metrics
    probing = Probing(prober, means, lambda: fleet.view.waiting)
    patrol = Patrol(fleet, means)

    async def probe() -> None:
        until = time.monotonic() + PROBE_SLICE_S  # a flood of new ones is not one step that takes for ever
        while duty.held and time.monotonic() < until and await probing.step():
            pass

    loops = [
        every("fleet", LOOK_EVERY_S, duty.on_duty(fleet.look), timeout_s=60, metrics=metrics),
        every("probe", PROBE_EVERY_S, probe, timeout_s=START_TIMEOUT_S + 120, metrics=metrics),
    ]
    for name, act in fleet.passes().items():
        loops.append(every(f"fleet-{name}", FLEET_EVERY_S, duty.on_duty(act), timeout_s=300, metrics=metrics))
    if settings.patrol_per_s:
        loops.append(
            every("patrol", 1 / settings.patrol_per_s, duty.on_duty(patrol.step), timeout_s=300, metrics=metrics)
        )
    return loops


def _means(settings: Settings, control: Control, metrics: Metrics, records: SqlRecords, capacity: int) -> Means:
    home = settings.home.absolute()
    return Means(
        registry=control.registry,
        store=control.adapters,
        fleet=control.fleet,
        duties=SqlDuties(control.database),
        book=Book(control.adapters),
        staging=Staging(
            control.artifacts,
            folder=home / "stage",
            memory=memory_folder(home),
            bytes_max=settings.stage_bytes_max if _here(settings) else 0,
            signatures=make_signatures(settings),
        ),
        metrics=metrics,
        revision=control.revision,
        taint=records.taint,
        restart=_restart(settings),
        arms=lambda: reserved(control.experiments.list(active=True)),
        terms=Terms(
            base_name=control.base.name,
            base_digest=control.base.digest,
            flags=_flags(settings),
            bound=capacity,
            headroom=settings.adapter_headroom,
            copies_min=settings.copies_min,
            load_wait_s=settings.load_wait_s,
            drain_timeout_s=settings.drain_timeout_s,
            poison_drain_s=settings.poison_drain_s,
        ),
    )


def _here(settings: Settings) -> bool:
    """Whether every engine runs on this machine, and can read what lies in its memory."""
    urls = [urlsplit(url) for url in settings.replicas.values()]
    return all(url.scheme == "unix" or url.hostname in ("127.0.0.1", "localhost", "::1") for url in urls)


def _flags(settings: Settings) -> str:
    """What of an engine's start its answers may depend on; not where it listens nor how long it may take."""
    told = settings.engine.model_dump_json(exclude={"urls", "start_timeout_s", "supervised", "max_cpu_loras"})
    return hashlib.sha256(told.encode()).hexdigest()


def _restart(settings: Settings) -> Restart:
    """`graftline up` restarts the engine that it started; whoever runs others must do it there."""
    if not settings.engine.supervised:
        return nobody

    def restart(replica: str, *, started_at: float, why: str) -> bool:
        recycle.ask(settings.home.absolute() / "run", recycle.Request(started_at=started_at, why=why))
        return True

    return restart
