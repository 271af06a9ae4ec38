"""Background loops: each runs one step again and again, under a time limit, and outlives every failure of its step.
And steps a few at a time, of which no failure is outlived."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from monitoring.telemetry.shared import Metrics

log = logging.getLogger("graftline.loops")


async def every(
    name: str, period_s: float, step: Callable[[], Awaitable[object]], *, timeout_s: float, metrics: Metrics
) -> None:
    """Run `step` for ever, `period_s` apart. A step that fails or takes too long is logged, counted and run again.

    The same failure is logged once until the step has succeeded again, so that a database that is away for an hour
    does not fill the disk.
    """
    failing = ""
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                await step()
            if failing:
                log.info("%s works again", name)
            failing = ""
        except Exception as error:  # the loop supervisor: one of the three places that may catch everything
            metrics.counter("graftline_loop_failures_total", loop=name).add(1)
            if (text := f"{type(error).__name__}: {error}") != failing:
                log.error("%s failed: %s", name, text, exc_info=not failing)
            failing = text
        await asyncio.sleep(period_s)


async def abreast(steps: Iterable[Callable[[], Awaitable[object]]], width: int) -> None:
    """Run these, `width` at a time. After the first that raises none begins, and it is raised when the others ended."""
    waiting = iter(steps)

    async def lane() -> None:
        for step in waiting:
            done = False
            try:
                await step()
                done = True
            finally:
                if not done:
                    deque(waiting, maxlen=0)

    found = await asyncio.gather(*(lane() for _ in range(width)), return_exceptions=True)
    for problem in found:
        if isinstance(problem, BaseException):
            raise problem
