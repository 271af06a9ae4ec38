"""Starts what a measurement needs, as processes on free ports in a folder of their own, and stops all of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PORTS = (20_000, 32_000)
_RANDOM = random.SystemRandom()


@dataclass(slots=True)
class Stack:
    """Running processes by name; `home` is GRAFTLINE_HOME of all of them."""

    home: Path
    env: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to `<home>/<name>.log`."""
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv, stdout=log, stderr=log, env={**self.env, **(env or {})}, start_new_session=True
            )
        self.processes[name] = process
        return process

    def kill(self, name: str) -> None:
        """`kill -9` to the process and all in its group."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str, timeout_s: float = 40) -> int:
        """SIGTERM, then wait; returns the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")


@contextlib.contextmanager
def stack(**settings: str) -> Iterator[Stack]:
    """An empty stack; `settings` become `GRAFTLINE_*` variables of all its processes."""
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        home = Path(folder)
        ours = {f"GRAFTLINE_{name.upper()}": value for name, value in settings.items()}
        outside = {k: v for k, v in os.environ.items() if not k.startswith("GRAFTLINE_")}
        running = Stack(home, {**outside, "GRAFTLINE_HOME": str(home), **ours})
        signal.signal(signal.SIGTERM, _leave)
        try:
            yield running
        finally:
            for name in reversed(list(running.processes)):
                running.stop(name)


def _leave(number: int, _frame: object) -> None:
    """Told to stop: clean up on the way out, or engines and mounts would stay behind."""
    raise SystemExit(128 + number)


def free_port() -> int:
    """A port that nobody listens on. Below those that the kernel gives to clients: whoever is told of it takes seconds
    to listen, and another process's connection would have it by then."""
    while True:
        port = _RANDOM.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def scripted(running: Stack, name: str, *, port: int, model: str, **options: str) -> str:
    """Start a scripted engine; returns its URL."""
    _scripted(running, name, "--port", str(port), "--model", model, **options)
    wait_for_process(running, name, f"http://127.0.0.1:{port}/health", timeout_s=30)
    return f"http://127.0.0.1:{port}"


def scripted_on_a_socket(running: Stack, name: str, *, model: str, **options: str) -> str:
    """The same on a unix socket, as `graftline up` starts an engine; returns its URL."""
    path = running.home / f"{name}.sock"
    _scripted(running, name, "--uds", str(path), "--model", model, **options)
    until = time.monotonic() + 30
    while not path.is_socket():
        if time.monotonic() > until:
            raise TimeoutError(f"{path} did not appear within 30 s")
        time.sleep(0.05)
    return f"unix:{path}"


def _scripted(running: Stack, name: str, *argv: str, **options: str) -> None:
    more = [part for option, value in options.items() for part in (f"--{option.replace('_', '-')}", value)]
    running.start(name, [sys.executable, "-m", "gateway.engines.scripted", *argv, *more])


def gateway(running: Stack, *, port: int, name: str = "gateway", env: Mapping[str, str] | None = None) -> str:
    """Start a gateway process on `port`; returns its base URL once it lives."""
    running.start(name, [sys.executable, "-m", "gateway.cli", "serve"], {"GRAFTLINE_PORT": str(port), **(env or {})})
    wait_for_process(running, name, f"http://127.0.0.1:{port}/healthz", timeout_s=60)
    return f"http://127.0.0.1:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A whole installation started by `graftline up`: where to ask, and with which key."""

    running: Stack
    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        """Where the local engine listens."""
        return self.running.home / "run" / "engine.sock"

    def child(self, name: str) -> dict[str, Any]:
        """A supervised process, as the supervisor last described it: pid, state, since, restarts."""
        state = json.loads((self.running.home / "state.json").read_text())
        found: dict[str, Any] = next(child for child in state["children"] if child["name"].startswith(name))
        return found


def up(running: Stack, *, timeout_s: float = 300) -> Up:
    """Start `graftline up` and wait until it can answer."""
    port = free_port()
    running.env["GRAFTLINE_PORT"] = str(port)
    running.start("up", [sys.executable, "-m", "gateway.cli", "up"])
    wait_for_process(running, "up", f"http://127.0.0.1:{port}/readyz", timeout_s=timeout_s)
    return Up(running=running, port=port, key=(running.home / "admin.key").read_text().strip())


def make_key(running: Stack, **options: str) -> str:
    """A key by the CLI; every role unless told otherwise."""
    argv = [sys.executable, "-m", "gateway.cli", "keys", "create", "--name", "loadtest"]
    for role in options.pop("roles", "user engineer operator auditor").split():
        argv += ["--role", role]
    for option, value in options.items():
        argv += [f"--{option.replace('_', '-')}", value]
    return subprocess.run(argv, env=running.env, check=True, capture_output=True, text=True).stdout.strip()


def wait_for_process(running: Stack, name: str, url: str, *, timeout_s: float) -> None:
    """Until a process answers at `url` with 200; one that ends is not waited for, and its last words are told."""
    process = running.processes[name]
    try:
        wait_for(url, timeout_s=timeout_s, lives=lambda: process.poll() is None)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{running.log(name)[-3000:]}") from error


def wait_for(url: str, *, timeout_s: float, status: int = 200, lives: Callable[[], bool] = lambda: True) -> float:
    """Seconds until `url` answers with `status`; raises `TimeoutError` with what it said last.

    Where `lives` says that nobody will ever answer, it ends at once.
    """
    began = time.monotonic()
    said: object = None
    while time.monotonic() - began < timeout_s and lives():
        try:
            said, _ = get(url)
            if said == status:
                return time.monotonic() - began
        except OSError as error:
            said = error
        time.sleep(0.05)
    raise TimeoutError(f"{url} did not answer {status} within {timeout_s:g} s; last: {said}")


def get(url: str, key: str = "", timeout_s: float = 5) -> tuple[int, bytes]:
    return call("GET", url, None, key, timeout_s)


def call(method: str, url: str, body: Any, key: str = "", timeout_s: float = 60) -> tuple[int, bytes]:
    """One request on a connection of its own: (status, body)."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection.request(method, f"/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
