"""Adapters registered, promoted, rolled back and retired under running streams: nobody notices."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.installation import Installation, fresh, registered
from training.base.markers import spoken

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
STREAMS = 16


@dataclass
class Seen:
    """One answer as a client saw it."""

    status: int
    text: str
    adapter: str
    done: bool


@dataclass
class Traffic:
    """Sixteen clients that stream without a pause until told to stop."""

    installation: Installation
    model: str
    seen: list[Seen] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._threads = [threading.Thread(target=self._stream, args=(i,)) for i in range(STREAMS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def until(self, count: int, timeout_s: float = 60) -> None:
        """Wait for that many more answers."""
        goal, until = len(self.seen) + count, time.monotonic() + timeout_s
        while len(self.seen) < goal and time.monotonic() < until:
            time.sleep(0.02)

    def _stream(self, number: int) -> None:
        with self.installation.client() as client:
            for turn in itertools.count():
                if self._stop.is_set():
                    return
                try:
                    self.seen.append(self._one(client, f"Question {turn} of client {number}: how are you?"))
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))

    def _one(self, client: httpx.Client, text: str) -> Seen:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "stream": True,
            "temperature": 0,
            "max_tokens": 12,
        }
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                return Seen(answer.status_code, answer.read().decode(), "", False)
            said, done = [], False
            for event in events(answer):
                if event == "[DONE]":
                    done = True
                    continue
                part = json.loads(event)
                if "error" in part:
                    return Seen(200, event, "", False)
                said += [choice["delta"].get("content") or "" for choice in part["choices"]]
            return Seen(200, "".join(said), answer.headers["x-graftline-adapter"], done)


def events(answer: httpx.Response) -> Iterator[str]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield line[6:]


def test_versions_change_under_sixteen_streams_and_every_answer_is_whole(
    installation: Installation, markers: Path, tmp_path: Path
) -> None:
    words = {}
    first = registered(installation, fresh(markers, "alpha", tmp_path / "a"), "swap")
    words[f"swap:1@{first['digest']}"] = spoken("alpha")
    assert installation.ask("swap", max_tokens=12).json()["choices"][0]["message"]["content"] == spoken("alpha")

    with Traffic(installation, "swap") as traffic, installation.client() as client:
        traffic.until(STREAMS)
        second = registered(installation, fresh(markers, "bravo", tmp_path / "b"), "swap")
        words[f"swap:2@{second['digest']}"] = spoken("bravo")
        traffic.until(STREAMS)
        for number in (2, 1, 2):
            began = time.monotonic()
            moved = client.post("/v1/adapters/swap/promote", json={"number": number, "why": "test"})
            assert moved.status_code == 200, moved.text
            while (
                not installation.ask("swap", max_tokens=12).headers["x-graftline-adapter"].startswith(f"swap:{number}@")
            ):
                assert time.monotonic() - began < 5
            traffic.until(STREAMS)
        back = client.post("/v1/adapters/swap/rollback", json={"why": "test"})
        assert back.json()["number"] == 1
        traffic.until(STREAMS)
        assert client.delete("/v1/adapters/swap/1").status_code == 409  # live points at it
        client.delete("/v1/models/swap@candidate")
        traffic.until(STREAMS)

    assert not traffic.failures
    wrong = [s for s in traffic.seen if s.status != 200 or not s.done or s.text != words[s.adapter]]
    assert not wrong, wrong[:3]
    assert {s.adapter for s in traffic.seen} == set(words)
    assert len(traffic.seen) > 6 * STREAMS


def test_a_retired_version_leaves_the_engine_once_nobody_uses_it(
    installation: Installation, markers: Path, tmp_path: Path
) -> None:
    registered(installation, fresh(markers, "charlie", tmp_path / "c"), "leaver")
    with installation.client() as client:
        assert client.get("/v1/models/leaver").status_code == 200
        assert client.delete("/v1/models/leaver").json() == {"id": "leaver", "object": "model", "deleted": True}
        began = time.monotonic()
        while client.get("/v1/models/leaver").status_code != 404:
            assert time.monotonic() - began < 2
        while True:
            metrics = client.get("/metrics").text
            held = [line for line in metrics.splitlines() if line.startswith("graftline_replica_adapters")]
            versions = [v for v in client.get("/v1/adapters").json()["data"] if v["state"] == "verified"]
            if held and float(held[0].split()[-1]) == len(versions):
                break
            assert time.monotonic() - began < 20, (held, versions)
            time.sleep(0.1)
