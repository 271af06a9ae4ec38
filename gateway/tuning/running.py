"""The worker's loops for jobs, joined: one moves them on, the other says that this worker lives."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from gateway.app import beside
from gateway.control import Control
from gateway.loops import every
from gateway.settings import Settings, SettingsError
from gateway.tuning.house import Installation
from monitoring.telemetry.shared import Metrics
from training.jobs.means import Terms
from training.jobs.runner import Runner
from training.jobs.values import Job
from training.launchers.local import LocalLauncher
from training.launchers.ray import RayLauncher
from training.launchers.values import Launcher

log = logging.getLogger("graftline.jobs")

STEP_EVERY_S: Final = 0.5
#: A worker that has not been heard of for so many signs of life has lost its jobs.
BEATS_MISSED: Final = 6


@asynccontextmanager
async def running_jobs(settings: Settings, control: Control, metrics: Metrics) -> AsyncIterator[None]:
    """Run jobs for as long as the block lasts, where this worker is to. Every worker runs its own, and rows say whose a
    job is. At the end they are given back, and their processes end."""
    if not settings.jobs:
        yield
        return
    runner = make_runner(settings, control, metrics)

    async def step() -> None:
        await asyncio.to_thread(runner.step)
        metrics.gauge("graftline_jobs_running").set(runner.running)

    async def beat() -> None:
        await asyncio.to_thread(runner.beat)

    try:
        async with beside(
            every("jobs", STEP_EVERY_S, step, timeout_s=600, metrics=metrics),
            every("jobs-beat", settings.jobs_heartbeat_s, beat, timeout_s=60, metrics=metrics),
        ):
            yield
    finally:
        await asyncio.to_thread(runner.close)


def make_runner(settings: Settings, control: Control, metrics: Metrics) -> Runner:
    """This worker's part of the jobs."""

    def ended(job: Job) -> None:
        metrics.counter("graftline_jobs_ended_total", state=str(job.state)).add(1)
        log.info("%s is %s%s", job.id, job.state, f" ({job.error.code})" if job.error else "")

    near = LocalLauncher()
    return Runner(
        control.jobs,
        Installation(control=control, settings=settings),
        settings.runs,
        f"{os.getpid()}@{os.uname().nodename}/{time.time():.3f}",
        launcher=make_launcher(settings, near),
        near=near,
        terms=Terms(
            at_once=settings.jobs_at_once,
            memory_gib=settings.jobs_memory_gib,
            stale_s=BEATS_MISSED * settings.jobs_heartbeat_s,
            outlives=settings.launcher == "ray",
        ),
        ended=ended,
    )


def make_launcher(settings: Settings, near: Launcher) -> Launcher:
    """Where trainings run. Raises SettingsError."""
    if settings.launcher == "local":
        return near
    if not settings.ray_url:
        raise SettingsError('launcher = "ray" needs ray_url, the dashboard of the cluster, as http://HOST:8265.')
    return RayLauncher(
        url=settings.ray_url,
        python=settings.ray_python,
        token=settings.ray_token,
        cpus=settings.ray_cpus,
        gpus=settings.ray_gpus,
    )
