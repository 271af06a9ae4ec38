"""Values that cross the gateway's rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from adapters.carried import Carried

Endpoint = Literal["chat", "completions", "responses", "embeddings"]
OnUnavailable = Literal["fail", "previous", "base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a model name means at this moment: the base, or one version of an adapter.

    `engine_name` is the only name the engine ever sees. `label` is what `x-graftline-adapter` says.
    """

    engine_name: str
    adapter: str = ""  # name:number, empty for the base
    digest: str = ""  # of the adapter, empty for the base
    on_unavailable: OnUnavailable = "fail"
    previous: Target | None = None
    carried: Carried | None = None  # what the version carries beneath the client's own values
    pinned: bool = False  # asked for by an alias whose version always has a slot of the engine

    @property
    def resident(self) -> str:
        """The engine-side name that a replica must hold; empty for the base, which every replica is."""
        return self.engine_name if self.adapter else ""

    @property
    def label(self) -> str:
        return f"{self.adapter}@{self.digest}" if self.adapter else self.engine_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One inference request, understood and allowed: what `pipeline.serve` needs and nothing else.

    `document` is the parsed body with every field that is ours already taken out; `model` is the name as asked.
    `tokens_max` is the reservation, in tokens, for all `n` answers together; `open_ended` when it is a guess, because
    the caller named no limit.
    """

    endpoint: Endpoint
    model: str
    document: dict[str, Any]
    stream: bool
    wants_usage: bool
    tokens_max: int
    open_ended: bool
    tags: Tags
    bearer: bytes
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What the caller said about the request, for the record and never for the engine."""

    user: str = ""
    conversation: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    store: bool | None = None
    retry_count: int = 0
    arm: str = ""  # of an experiment, asked for by name


class Hold(Protocol):
    """A reservation against a key's quota. Settling twice, or settling after release, changes nothing."""

    def settle(self, tokens_used: int) -> None: ...

    def release(self) -> None: ...
