"""One request's notes, filled in as it goes; the outbox turns them into a record afterwards."""

from __future__ import annotations

import time

from gateway.access.keys import Key
from gateway.access.quota import Remaining
from gateway.routing.trials import Met
from gateway.values import Call, Endpoint, Target


class Draft:
    """Mutable on purpose and private to one request: every field is written by the request's own task.

    Times are `time.perf_counter()` seconds, 0.0 where the moment never came.
    """

    __slots__ = (
        "answer",
        "answer_bytes",
        "arm",
        "attempts",
        "call",
        "ended",
        "endpoint",
        "error",
        "fallback",
        "first_byte",
        "first_token",
        "incomplete",
        "key",
        "last_token",
        "left",
        "met",
        "queued_s",
        "raw",
        "replica",
        "request_id",
        "shadows",
        "started",
        "started_at",
        "status",
        "streamed",
        "target",
        "tokens_used",
        "truncated",
        "usage",
        "wire_id",
    )

    def __init__(self, endpoint: Endpoint, request_id: str, wire_id: str) -> None:
        self.endpoint = endpoint
        self.request_id = request_id  # what the client is told
        self.wire_id = wire_id  # what the engine is told; minted for every try
        self.started = time.perf_counter()
        self.started_at = time.time()
        self.first_byte = self.first_token = self.last_token = self.ended = 0.0
        self.call: Call | None = None
        self.key: Key | None = None
        self.target: Target | None = None
        self.met: Met | None = None  # its part in an experiment
        self.arm = ""  # one that was asked for by name
        self.shadows = False  # mirrored from another request: nobody waits for it, and nobody pays
        self.left: Remaining | None = None  # what the key has left, where a limit was what ended the request
        self.raw = b""
        self.replica = ""
        self.fallback = ""
        self.attempts = 0
        self.queued_s = 0.0  # waited for an adapter slot
        self.status = 0
        self.error = ""
        self.incomplete = False
        self.streamed = False
        self.answer: list[bytes] = []
        self.answer_bytes = 0
        self.truncated = False
        self.usage = b""
        self.tokens_used = 0

    def keep(self, chunk: bytes, bytes_max: int) -> None:
        """Remember a part of the answer, up to the limit of what a record may hold."""
        if self.answer_bytes < bytes_max:
            self.answer.append(chunk[: bytes_max - self.answer_bytes])
        self.answer_bytes += len(chunk)
        self.truncated = self.answer_bytes > bytes_max

    @property
    def bytes(self) -> int:
        """How much memory the bodies take."""
        return len(self.raw) + sum(map(len, self.answer))
