"""The rows of this floor as frozen values. Times are unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapters.errors import Reason
from adapters.lifecycle import State

OnUnavailable = Literal["fail", "previous", "base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A version before it has a number."""

    name: str
    digest: str
    created_by: str
    base_digest: str
    rank: int
    alpha: float
    bytes: int
    coverage: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One adapter's bytes under one name. All but `state` and `reasons` never changes."""

    id: str
    name: str
    number: int
    digest: str
    state: State
    created_at: float
    created_by: str
    base_digest: str
    rank: int
    alpha: float
    bytes: int
    coverage: str
    reasons: tuple[Reason, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A pointer that people move. `previous` is where it pointed before."""

    name: str
    alias: str
    number: int
    previous: int | None
    revision: int
    on_unavailable: OnUnavailable
    moved_by: str
    moved_at: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Who did what to what, and when. `subject` is `support:7` or `support@live`."""

    at: float
    who: str
    action: str
    subject: str
    before: str
    after: str
    why: str
