"""Long streams whose every token is timed: what a load does to those who have nothing to do with it."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Gap:
    """Between two tokens of one answer, unix times."""

    began: float
    ended: float

    @property
    def ms(self) -> float:
        return (self.ended - self.began) * 1e3


@dataclass
class Streams:
    """One thread per body in `bodies`; each streams one answer after another until the block ends."""

    port: int
    key: str
    bodies: Sequence[dict[str, Any]]
    gaps: list[Gap] = field(default_factory=list)
    answers: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(body,), daemon=True) for body in self.bodies]

    def __enter__(self) -> Streams:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def usual_ms(self, began: float, ended: float) -> float:
        """The middle gap of a period."""
        return statistics.median([gap.ms for gap in self.gaps if began <= gap.began and gap.ended <= ended] or [0.0])

    def longest_ms(self, began: float, ended: float) -> float:
        """The longest gap, of any stream, that lies in a period or reaches into it."""
        return max((gap.ms for gap in self.gaps if gap.ended >= began and gap.began <= ended), default=0.0)

    def _run(self, body: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                self._one(connection, body | {"seed": turn})
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                time.sleep(0.05)
        connection.close()

    def _one(self, connection: http.client.HTTPConnection, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection.request("POST", "/v1/chat/completions", json.dumps(body | {"stream": True}), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            self.failures.append(f"{answer.status} {answer.read()[:200]!r}")
            time.sleep(0.05)
            return
        last, ended = 0.0, False
        while line := answer.readline():
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                ended = True
            elif line.startswith(b'data: {"error"'):
                self.failures.append(line.decode(errors="replace")[:200])
            else:
                now = time.time()
                if last:
                    self.gaps.append(Gap(last, now))
                last = now
        self.answers += ended
        if not ended:
            self.failures.append("cut without [DONE]")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; 0 for none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
