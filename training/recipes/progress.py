"""What a run tells while it goes on: frozen events, and who listens. Light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """The run knows what it does."""

    method: str
    rows: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chose:
    """A value that the recipe left open."""

    key: str
    value: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """One optimizer step, with the numbers that belong to it."""

    step: int
    steps: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The held-out rows were looked at."""

    step: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint is whole."""

    step: int
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something that a person should know: rows left out, a limit reached, precision lost."""

    what: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What the whole run will take, from a few steps of it. `memory` was measured, in bytes by what they are for."""

    memory: Mapping[str, int]
    estimated: Mapping[str, int]
    rows: int
    steps: int
    tokens: int
    tokens_per_s: float
    step_s: float
    seconds: float
    probed_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The adapter stands in its folder."""

    folder: str
    seconds: float
    cpu_seconds: float
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run ended without an adapter."""

    code: str
    message: str


Event = Began | Chose | Stepped | Evaluated | Saved | Noted | Planned | Finished | Failed
_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Began, Chose, Stepped, Evaluated, Saved, Noted, Planned, Finished, Failed)
}


class Progress(Protocol):
    """Who listens to a run."""

    def said(self, event: Event) -> None:
        """Called in the thread that trains; must not block."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Progress that keeps what it hears."""

    events: list[Event] = field(default_factory=list)

    def said(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)


def as_fields(event: Event) -> dict[str, Any]:
    """An event as one line of JSON has it: its kind under `event`."""
    return {"event": type(event).__name__.lower(), **asdict(event)}


def from_fields(fields: Mapping[str, Any]) -> Event:
    """The event in a line. Raises ValueError for none of ours."""
    kind = _KINDS.get(str(fields.get("event")))
    if kind is None:
        raise ValueError(f"no event is called {fields.get('event')!r}; allowed: {', '.join(_KINDS)}")
    try:
        event: Event = kind(**{name: value for name, value in fields.items() if name != "event"})
    except TypeError as error:
        raise ValueError(f"this is no whole {fields['event']} event: {error}") from error
    return event
