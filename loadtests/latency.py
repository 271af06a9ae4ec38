"""`make latency`: what the gateway adds to a request, sequentially, over a fast mock, with everything on.

The gateway reaches the mock on a unix socket, as it reaches the engine that `graftline up` starts; the first row's note
says what TCP costs instead, for engines elsewhere. Who asks the mock directly does so over TCP.

Direct and through the gateway by turns, several rounds; overhead is the median over the rounds of the difference of
the rounds' medians, so that drift of a noisy machine falls out. An A/A row (direct against direct) shows what noise
remains. Streams: time to the first token, and the largest stall between events that the mock sends 5 ms apart.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loadtests.report import Row, report
from loadtests.stack import free_port, gateway, make_key, scripted, scripted_on_a_socket, stack

ROUNDS, PER_ROUND, WARM_UP = 15, 40, 60
OVERHEAD_MS_MAX = 0.4
STALL_MS_MAX = 40.0
MODEL = "tidewell"


@dataclass(frozen=True, slots=True)
class End:
    """One kept-alive connection."""

    connection: http.client.HTTPConnection
    key: str

    @classmethod
    def to(cls, port: int, key: str) -> End:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.connect()
        return cls(connection, key)

    def ask(self, *, stream: bool, text: str = "hello") -> tuple[float, float]:
        """(total, first token) in ms."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8, "stream": stream}
        began = time.perf_counter()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = self.connection.getresponse()
        first = 0.0
        if stream:
            answer.readline()
            first = time.perf_counter() - began
        data = answer.read()
        total = time.perf_counter() - began
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {data[:300]!r}")
        return total * 1e3, first * 1e3

    def gaps(self, text: str) -> list[float]:
        """Gaps between the events of one stream, ms."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = self.connection.getresponse()
        found, last = [], time.perf_counter()
        while line := answer.readline():
            if line.startswith(b"data: "):
                now = time.perf_counter()
                found.append((now - last) * 1e3)
                last = now
        return found[1:]


def compare(a: End, b: End, measure: Callable[[End], float]) -> tuple[float, float, float]:
    """(overhead of b over a, a's median, b's median) in ms."""
    differences, all_a, all_b = [], [], []
    for end in (a, b):
        for _ in range(WARM_UP):
            measure(end)
    for turn in range(ROUNDS):
        got: dict[int, list[float]] = {}
        for end in (a, b) if turn % 2 else (b, a):
            got[id(end)] = [measure(end) for _ in range(PER_ROUND)]
        all_a += got[id(a)]
        all_b += got[id(b)]
        differences.append(statistics.median(got[id(b)]) - statistics.median(got[id(a)]))
    return statistics.median(differences), statistics.median(all_a), statistics.median(all_b)


@contextmanager
def ends(*, socket: bool) -> Iterator[tuple[End, End, End]]:
    """Twice the mock itself, and the gateway in front of one: on a unix socket, or on the same TCP port."""
    with stack() as running:
        engine_port, gateway_port = free_port(), free_port()
        url = scripted(running, "engine", port=engine_port, model=MODEL)
        if socket:
            url = scripted_on_a_socket(running, "behind", model=MODEL)
        running.env["GRAFTLINE_ENGINE_URLS"] = url
        key = make_key(running, requests_per_min="1000000", tokens_per_min="1000000000", concurrent="100")
        gateway(running, port=gateway_port)
        yield End.to(engine_port, key), End.to(engine_port, key), End.to(gateway_port, key)


def main() -> int:
    rows: list[Row] = []
    with ends(socket=False) as (direct, _, through):
        over_tcp, _, _ = compare(direct, through, lambda end: end.ask(stream=False)[0])
    with ends(socket=True) as (direct, again, through):
        for name, measure in (
            ("total, one answer", lambda end: end.ask(stream=False)[0]),
            ("total, streamed", lambda end: end.ask(stream=True)[0]),
            ("first token, streamed", lambda end: end.ask(stream=True)[1]),
        ):
            noise, _, _ = compare(direct, again, measure)
            overhead, before, after = compare(direct, through, measure)
            rows.append(
                Row(
                    name=f"{name}: added p50",
                    found=overhead,
                    bound=OVERHEAD_MS_MAX,
                    unit="ms",
                    note=f"direct {before:.3f}, through {after:.3f}, A/A {noise:+.3f}"
                    + ("" if rows else f"; engine on TCP: {over_tcp:.3f}"),
                )
            )
        paced = "[[tokens:48]] [[pace:0.005]]"
        plain = sorted(gap for _ in range(8) for gap in direct.gaps(paced))
        ours = sorted(gap for _ in range(8) for gap in through.gaps(paced))
        at = int(len(ours) * 0.99)
        note = f"direct p99 {plain[at]:.1f} max {plain[-1]:.1f}, through max {ours[-1]:.1f}; events 5 ms apart"
        rows.append(Row(name="stream: p99 gap", found=ours[at], bound=STALL_MS_MAX, unit="ms", note=note))
        late = sum(gap > STALL_MS_MAX for gap in ours) - sum(gap > STALL_MS_MAX for gap in plain)
        rows.append(
            Row(name="stream: gaps over 40 ms, beyond direct's", found=late, bound=1, unit="", note=f"{len(ours)} gaps")
        )
    return report("Added latency of the gateway (keys, quotas, routing, capture, metrics on)", rows)


if __name__ == "__main__":
    sys.exit(main())
