"""Values that the parts of the scripted engine hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the engine starts. `ttft_s` and `pace_s` are seconds to the first token and between tokens; `max_loras`
    distinct adapters run at once, 0 for no limit."""

    model: str = "base"
    max_model_len: int = 1024
    max_lora_rank: int = 16
    max_loras: int = 0
    ttft_s: float = 0.0
    pace_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    request_id: str
    body: bytes


class Reply(Protocol):
    """Where an answer is written; see `server.Reply`."""

    def whole(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None: ...

    def begin(self) -> None: ...

    async def event(self, data: bytes, *, split: bool = False) -> None: ...

    def end(self) -> None: ...

    def raw(self, data: bytes) -> None: ...

    def cut(self) -> None: ...
