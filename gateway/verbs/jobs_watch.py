"""Following a job, or a run, to its end: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gateway.verbs.console import say
from training.jobs.store import Jobs
from training.jobs.values import Job, JobEvent, JobState

LOOK_EVERY_S: Final = 0.5
_AT_ONCE: Final = 500
#: Lines about steps where there is no bar.
_LINES: Final = 10
_STOPPED: Final = frozenset({JobState.PAUSED})


@contextmanager
def steps_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar of steps, drawn on a terminal only; the callback takes (step, steps, a few words)."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[words]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None, words="")
        yield lambda step, steps, words: progress.update(task, completed=step, total=steps, words=words)


def follow(
    jobs: Jobs, id_: str, *, after: str = "", to_the_end: bool = True, sleep: Callable[[float], None] = time.sleep
) -> Job:
    """Say what happens to a job until it is over or paused; returns it. JobNotFound."""
    with steps_bar(id_) as bar:
        while True:
            job = jobs.get(id_)
            events = jobs.events(id_, after, _AT_ONCE, oldest_first=True)
            for event in events:
                after = event.id
                show(event, bar)
            if events:
                continue
            if not to_the_end or job.over or job.state in _STOPPED:
                return job
            sleep(LOOK_EVERY_S)


def show(event: JobEvent, bar: Callable[[int, int, str], None]) -> None:
    """One event: a step moves the bar, all else is a line. A few steps are lines too, for whoever has no terminal."""
    step, steps = event.data.get("step"), event.data.get("total_steps")
    if event.kind == "metrics" and isinstance(step, int) and isinstance(steps, int):
        bar(step, steps, event.message.partition(": ")[2])
        if step not in (1, steps) and step % max(1, steps // _LINES):
            return
    say(line(event))


def line(event: JobEvent) -> str:
    """An event as people read it."""
    at = time.strftime("%H:%M:%S", time.gmtime(event.at))
    mark = "" if event.level == "info" else f"{event.level}: "
    return f"{at}  {mark}{event.message}"
