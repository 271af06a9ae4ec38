"""The worker's loops for experiments and feedback, joined."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from gateway.control import Control
from gateway.engines.fleet.duty import Duty
from gateway.experimenting.flow import Flow
from gateway.experimenting.gauges import Gauges
from gateway.experimenting.looks import Looks
from gateway.experimenting.selftest import SelfTest
from gateway.experimenting.webhook import Webhook
from gateway.loops import every
from gateway.settings import Settings
from monitoring.records.store import Loop
from monitoring.telemetry.render import total
from monitoring.telemetry.shared import Metrics

ORPHANS_EVERY_S = 3600.0
WEBHOOK_EVERY_S = 1.0
_DAY_S = 86_400.0


def make_flow(settings: Settings) -> Flow:
    """What the ingester tells and the looks ask."""
    memory = settings.home.absolute() / "experiments.json"
    return Flow(settings.spool, memory, lambda: total(settings.metrics, "graftline_records_dropped_total"))


def make_looks(settings: Settings, control: Control, records: Loop, flow: Flow, metrics: Metrics) -> Looks:
    return Looks(
        control.experiments, control.registry, records, flow, Gauges(metrics), patience_s=settings.experiment_every_s
    )


def loops(
    settings: Settings, control: Control, records: Loop, looks: Looks, duty: Duty, metrics: Metrics
) -> Iterator[Coroutine[Any, Any, None]]:
    """What runs beside the worker's other loops, each while this worker is on duty."""
    often_s = settings.experiment_every_s
    test = SelfTest(control, settings)

    async def keep() -> None:
        await asyncio.to_thread(test.keep)

    async def expire() -> None:
        orphans = await asyncio.to_thread(records.expire, time.time(), settings.feedback_orphans_keep_days * _DAY_S)
        metrics.gauge("graftline_feedback_waiting").set(orphans.waiting)
        metrics.counter("graftline_feedback_expired_total").add(orphans.expired)

    yield every("experiments", often_s, duty.on_duty(looks.step), timeout_s=often_s + 60, metrics=metrics)
    yield every("self-test", often_s, duty.on_duty(keep), timeout_s=60, metrics=metrics)
    yield every("orphans", ORPHANS_EVERY_S, duty.on_duty(expire), timeout_s=600, metrics=metrics)
    if settings.approvals_webhook:
        webhook = Webhook(settings.approvals_webhook, control.experiments, metrics)
        yield every("webhook", WEBHOOK_EVERY_S, duty.on_duty(webhook.step), timeout_s=300, metrics=metrics)
