"""From a run's own events (`events.jsonl`) to what people are told of a job. The file is read as it grows.

Ids follow from where a line stands, so a worker that takes a job over reads the file from its beginning and repeats
nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from training.jobs.values import Checkpoint, Job, JobEvent, checkpoint_id, event_id
from training.launchers.values import LOG
from training.recipes.progress import (
    Began,
    Chose,
    Evaluated,
    Event,
    Failed,
    Finished,
    Noted,
    Saved,
    Stepped,
    from_fields,
)

FILE: Final = "events.jsonl"
#: Of a long run, so many steps are told.
STEPS_TOLD: Final = 1000
_AT_ONCE = 1 << 20
_LOG_END = 64 << 10
#: Of what a run notes, things that somebody may want to change.
_WORRY: Final = frozenset({"kl_limit", "masks_lost", "rows_too_long", "processes"})
_START = b'{"event"'
_WORDS: Final = {"loss": "train_loss", "mean_token_accuracy": "train_mean_token_accuracy"}
_HELD_WORDS: Final = {"eval_loss": "valid_loss", "eval_mean_token_accuracy": "valid_mean_token_accuracy"}


@dataclass(slots=True)
class Tail:
    """One run's events, read as they come."""

    folder: Path
    offset: int = 0
    #: What was heard last of all, and the last of some kinds.
    last: Event | None = None
    step: int = 0
    steps: int = 0
    saved: int = 0
    tokens: int | None = None
    numbers: dict[str, float] = field(default_factory=dict)

    def read(self) -> Iterator[tuple[int, Event]]:
        """The whole lines that came since the last time, with where each stands."""
        try:
            with (self.folder / FILE).open("rb") as file:
                file.seek(self.offset)
                block = file.read(_AT_ONCE)
        except FileNotFoundError:
            return
        whole = block[: block.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            at, self.offset = self.offset, self.offset + len(line)
            if (event := _event(line)) is not None:
                self._note(event)
                yield at, event

    def _note(self, event: Event) -> None:
        self.last = event
        if isinstance(event, Began):
            self.steps = event.steps
        elif isinstance(event, Stepped):
            self.step, self.steps = event.step, event.steps
            if (tokens := event.numbers.get("num_tokens")) is not None and math.isfinite(tokens):
                self.tokens = int(tokens)
            self.numbers |= _named(event.numbers, _WORDS, only=True)
        elif isinstance(event, Evaluated):
            self.numbers |= _named(event.numbers, _HELD_WORDS, only=True)
        elif isinstance(event, Saved):
            self.saved = event.step


def mend(folder: Path) -> None:
    """End a line that a killed process left open, so that what follows stands on its own."""
    path = folder / FILE
    if path.is_file() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")


def told(job: Job, at: int, event: Event, *, now: float) -> JobEvent | None:
    """An event as the job tells it; None for what is too much."""
    say = JobEvent(id=event_id(job.id, FILE, at), job=job.id, at=now, message="")
    match event:
        case Chose(key=key, value=value, why=why):
            return replace(say, message=f"{key} = {value}: {why}", data={"key": key, "value": value})
        case Began(method=method, rows=rows, steps=steps):
            data = {"method": method, "rows": rows, "total_steps": steps}
            return replace(say, message=f"Training began: {method} on {rows} rows, {steps} steps", data=data)
        case Stepped(step=step, steps=steps, numbers=numbers):
            if step not in (1, steps) and step % max(1, math.ceil(steps / STEPS_TOLD)):
                return None
            shown = _named(numbers, _WORDS)
            loss = f": training loss={shown['train_loss']:.2f}" if "train_loss" in shown else ""
            heard = {"step": step, "total_steps": steps, **shown}
            return replace(say, kind="metrics", message=f"Step {step}/{steps}{loss}", data=heard)
        case Evaluated(step=step, numbers=numbers):
            shown = _named(numbers, _HELD_WORDS)
            loss = f": validation loss={shown['valid_loss']:.2f}" if "valid_loss" in shown else ""
            return replace(
                say, kind="metrics", message=f"Held-out rows at step {step}{loss}", data={"step": step, **shown}
            )
        case Saved(step=step):
            return replace(say, message=f"Checkpoint created at step {step}", data={"step": step})
        case Noted(what=what, text=text):
            return replace(say, level="warn" if what in _WORRY else "info", message=text, data={"what": what})
        case Finished(seconds=seconds, cpu_seconds=cpu, numbers=numbers):
            message = f"Training ended after {seconds:.0f} s ({cpu:.0f} s of CPU)"
            return replace(say, message=message, data=_named(numbers, {}))
        case Failed(code=code, message=why):
            return replace(say, level="error", message=why, data={"code": code})
    return None


def checkpoint(job: Job, event: Saved, tail: Tail, *, now: float) -> Checkpoint:
    """A checkpoint with the numbers that were heard before it."""
    return Checkpoint(
        id=checkpoint_id(job.id, event.step),
        job=job.id,
        at=now,
        step=event.step,
        metrics={"step": float(event.step), **tail.numbers},
        folder=event.folder,
    )


def finished(folder: Path) -> Finished | None:
    """What a run said at its end; None where it was ended before. What it wrote is then not whole."""
    tail, last = Tail(folder), None
    while True:
        before = tail.offset
        for _, event in tail.read():
            last = event if isinstance(event, Finished) else None
        if tail.offset == before:
            return last


def _event(line: bytes) -> Event | None:
    """The event in a line; where a killed process left the beginning of one before it, the last in it."""
    try:
        return from_fields(json.loads(line[max(0, line.rfind(_START)) :]))
    except ValueError:
        return None


def _named(numbers: Mapping[str, float], words: Mapping[str, str], *, only: bool = False) -> dict[str, float]:
    """Numbers under OpenAI's names, where it has one; without those that are none."""
    kept = {name: value for name, value in numbers.items() if math.isfinite(value) and (not only or name in words)}
    return {words.get(name, name): value for name, value in kept.items()}


def last_failure(folder: Path) -> Mapping[str, Any] | None:
    """What a process whose events stand in the log alone said at its end, if that was a failure."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_END))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        if line.startswith(_START):
            with suppress(ValueError):
                found: dict[str, Any] = json.loads(line)
                return found if found.get("event") == "failed" else None
    return None
