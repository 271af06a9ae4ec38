"""What an evaluation tells while it goes on: frozen events, a line of JSON each. Light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """So many rows of a suite were answered by a subject, or by the judge."""

    suite: str
    who: str
    done: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something that a person should know."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The evaluation stands in its file."""

    file: str
    digest: str
    measures: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """There is no evaluation."""

    code: str
    message: str
    retryable: bool = False


Event = Asking | Noted | Finished | Failed
_KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in (Asking, Noted, Finished, Failed)}


class Progress(Protocol):
    """Who listens."""

    def said(self, event: Event) -> None:
        """Called in the event loop; must not block."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Progress that keeps what it hears."""

    events: list[Event] = field(default_factory=list)

    def said(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)


def as_fields(event: Event) -> dict[str, Any]:
    """An event as one line of JSON has it."""
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
