"""Gateways for tests, as processes, over scripted engines: everything is real but the model."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx

from loadtests.stack import Stack, free_port, gateway, scripted, wait_for_process
from monitoring.records.events import Inference
from monitoring.records.sql import SqlRecords
from tests.e2e.verbs import verb
from tests.engines import TLS, tiny_adapter

BASE = "tidewell"
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class House:
    """A gateway, its engines and, mostly, a worker. `key` has every role and no limit."""

    running: Stack
    url: str
    engines: tuple[str, ...]
    key: str

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=TLS, trust_env=False)

    def chat(self, text: str = "hello", *, key: str | None = None, **fields: Any) -> httpx.Response:
        headers = fields.pop("headers", None)
        with self.client(key) as client:
            return client.post("/v1/chat/completions", json=asked(text, **fields), headers=headers)

    def stream(self, text: str = "hello", **fields: Any) -> list[Any]:
        """The events of a streamed answer, `[DONE]` as a string, comments left out."""
        return events(self.chat(text, stream=True, **fields).text)

    def script(self, engine: int = 0, **told: Any) -> dict[str, Any]:
        """Tell an engine what to do next, or only look at what it counts."""
        found: dict[str, Any] = httpx.post(
            f"{self.engines[engine]}/script", json=told, verify=TLS, trust_env=False
        ).json()
        return found

    def new_key(self, **fields: Any) -> tuple[str, str]:
        """(secret, id) of a key that the gateway already takes."""
        with self.client() as client:
            made = client.post("/v1/keys", json={"name": "test", **fields})
            assert made.status_code == 201, made.text
        secret: str = made.json()["secret"]
        with self.client(secret) as theirs:
            eventually(lambda: theirs.get("/v1/models").status_code == 200)
        return secret, str(made.json()["id"])

    def records(self, since: float | None = None) -> list[Inference]:
        return _shelf(self.running.home).query(since=since, limit=10_000)

    def record(self, request_id: str) -> Inference:
        """The one record of a request; among the latest first, for a shared house has thousands."""
        began = time.time()

        def found() -> list[Inference]:
            since = began - 30 if time.time() < began + 3 else None
            return [each for each in self.records(since) if each.request_id == request_id]

        (one,) = eventually(found)
        return one

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/readyz", verify=TLS, trust_env=False).json()
        return found

    def metric(self, start: str) -> float:
        """The sum of the samples whose lines begin so."""
        text = httpx.get(f"{self.url}/metrics", verify=TLS, trust_env=False).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(start))

    def register(self, name: str, folder: Path, *, seed: int = 0) -> dict[str, Any]:
        """A small adapter, registered by its folder and verified by the engine."""
        with self.client() as client:
            folder = tiny_adapter(folder, seed=seed)
            source = {"name": name, "source": str(folder), "unprobed": True, "wait_s": 20}
            made = client.post("/v1/adapters", json=source)
        assert made.status_code == 201, made.text
        found: dict[str, Any] = made.json()
        eventually(lambda: self.chat(model=f"{name}:{found['number']}").status_code == 200)
        eventually(lambda: self.chat(model=name).status_code == 200)  # verified first, pointed at after
        return found


@cache
def _shelf(home: Path) -> SqlRecords:
    return SqlRecords(home / "records")


def asked(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": BASE, "messages": [{"role": "user", "content": text}], **fields}


def events(text: str) -> list[Any]:
    found = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [event if event == "[DONE]" else json.loads(event) for event in found]


def eventually(check: Callable[[], Found], timeout_s: float = 30.0) -> Found:
    """What `check` returns once it is true; real processes have no clock to inject."""
    until = time.monotonic() + timeout_s
    while True:
        if found := check():
            return found
        assert time.monotonic() < until, f"still {found!r} after {timeout_s:g} s"
        time.sleep(0.02)


def raw(url: str, data: bytes, *, timeout_s: float = 10.0) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # closed in our face: what it said is still there
            connection.sendall(data)
        return _all(connection)


def _all(connection: socket.socket) -> bytes:
    parts = []
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def worker(running: Stack) -> None:
    """Start a worker, and wait until it works."""
    running.start("worker", [sys.executable, "-m", "gateway.cli", "work"])
    eventually(lambda: "the worker is ready" in running.log("worker"), timeout_s=60)


def make_key(running: Stack) -> str:
    """A key of every role."""
    roles = [word for role in ("user", "engineer", "operator", "auditor") for word in ("--role", role)]
    made = verb(running.env, "keys", "create", "--name", "test", *roles)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout.strip()


def open_house(running: Stack, *, engines: int, slots: int = 0, **env: str) -> House:
    urls = tuple(
        scripted(running, f"engine-{i}", port=free_port(), model=BASE, max_loras=str(slots)) for i in range(engines)
    )
    running.env["GRAFTLINE_ENGINE_URLS"] = ",".join(urls)
    running.env.setdefault("GRAFTLINE_PROBE", "off")  # a scripted engine gives no numbers that a real base would
    key = make_key(running)
    url = gateway(running, port=free_port(), env=env)
    worker(running)
    found = House(running, url, urls, key)
    eventually(lambda: "up" in str(found.ready()["engines"]))
    # The worker asks each engine before it opens it: of what a test scripts next, nothing is meant for that question.
    opened = [f"engine engine-{i} answers as it should" for i in range(engines)]
    eventually(lambda: all(words in running.log("worker") for words in opened))
    return found


def start_gateway(running: Stack) -> House:
    """A gateway over whatever `running.env` names, without waiting for an engine and without a worker."""
    key = make_key(running)
    port = free_port()
    running.start("gateway", [sys.executable, "-m", "gateway.cli", "serve"], {"GRAFTLINE_PORT": str(port)})
    wait_for_process(running, "gateway", f"http://127.0.0.1:{port}/healthz", timeout_s=60)
    return House(running, f"http://127.0.0.1:{port}", (), key)
