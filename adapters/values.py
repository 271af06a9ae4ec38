"""The rows of this floor as frozen values. Times are unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adapters.carried import Carried
from adapters.errors import Reason
from adapters.lifecycle import State

OnUnavailable = Literal["fail", "previous", "base"]
Origin = Literal["upload", "training"]

#: What was looked at: `training` says what it was made from, `gate` whether what training made may serve, `override`
#: who went past the gate, `strike` speaks of an engine that died, `load` of a load.
Kind = Literal[
    "static", "probe", "parity", "signature", "training", "gate", "override", "strike", "tripwire", "load"
]  # fmt: skip


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
    origin: Origin = "upload"
    source: str = ""
    base_name: str = ""
    labels: tuple[str, ...] = ()
    carried: Carried = field(default_factory=Carried)
    template_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One adapter's bytes under one name. All but `state`, `moved_at`, `reasons` and `labels` never changes.

    `source` is where the bytes came from ("archive", "folder", "s3://…", "hub:org/x@rev"); `base_name` is the base that
    the adapter's own config names; `labels` are words such as "unprobed"; `moved_at` is when it came to its state.
    """

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
    origin: Origin = "upload"
    source: str = ""
    base_name: str = ""
    labels: tuple[str, ...] = ()
    carried: Carried = field(default_factory=Carried)
    template_digest: str = ""
    moved_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A pointer that people move. `previous` is where it pointed before; what is `pinned` keeps an engine's slot."""

    name: str
    alias: str
    number: int
    previous: int | None
    revision: int
    on_unavailable: OnUnavailable
    moved_by: str
    moved_at: float
    why: str
    pinned: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one look at a version showed, by whom. `subject` is the replica it was seen on, or empty; `body` is JSON."""

    name: str
    number: int
    kind: Kind
    at: float
    who: str
    passed: bool
    subject: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
