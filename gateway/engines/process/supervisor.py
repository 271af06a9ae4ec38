"""Keeps processes running: starts them, restarts them with growing pauses, drains and stops them in order.

Used by `graftline up` for the engine, the worker and the gateway alike. Each process runs under `keeper.py`, so that
nothing of it survives us, even a kill -9. What is known stands in a state file that is replaced whole at each change:

    {"pid": 7, "children": [{"name": "engine", "pid": 9, "state": "ready", "restarts": 0, "since": 1795241679.0, …}]}
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import orjson

from gateway.engines.errors import EngineError
from gateway.engines.process.child import Backoff, Child, ChildFailed, State, Status, log_tail, open_log
from training.launchers.local import KEEPER
from training.share import yield_to_others

__all__ = ["Backoff", "Child", "ChildFailed", "State", "Status", "Supervisor", "log_tail"]

_CHECK_TIMEOUT_S = 5.0

log = logging.getLogger("graftline.supervisor")


class Supervisor:
    """Runs children until told to stop. Stopping goes through them from the last to the first."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        state_file: Path | None = None,
        changed: Callable[[Status], None] | None = None,
    ) -> None:
        self._state_file = state_file
        self._changed = changed
        self._stop = asyncio.Event()
        self._failure: ChildFailed | None = None
        now = time.time()
        self._status = {child.name: Status(name=child.name, state=State.STOPPED, since=now) for child in children}
        self._kept = [_Kept(child, self._note) for child in children]

    async def run(self) -> None:
        """Start everything and return once `stop` was called and all have ended. Raises `ChildFailed`.

        Cancelling it kills the children at once; to drain them, call `stop` from the signal handler instead.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._keep(kept), name=kept.child.name) for kept in self._kept]
                await self._stop.wait()
                for kept, task in zip(reversed(self._kept), reversed(tasks), strict=True):
                    await kept.end(task)
        finally:
            for kept in self._kept:
                kept.kill()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin to stop: drain the last child, then the one before it. Safe to call from a signal handler."""
        self._stop.set()

    async def restart(self, name: str) -> None:
        """Drain one child and start it again without a pause. Returns once the old process has ended."""
        await next(kept for kept in self._kept if kept.child.name == name).recycle()

    def spawned_at(self, name: str) -> float | None:
        """When the child's present process was started, in unix seconds; None while there is none."""
        return next(kept for kept in self._kept if kept.child.name == name).spawned_at

    def status(self) -> tuple[Status, ...]:
        return tuple(self._status.values())

    async def _keep(self, kept: _Kept) -> None:
        try:
            await kept.keep()
        except ChildFailed as error:
            self._failure = self._failure or error
            self._stop.set()

    def _note(self, now: Status) -> None:
        name, state, pid = now.name, now.state, now.pid
        before = self._status[name]
        since = before.since if before.state is state and before.pid == pid else time.time()
        now = replace(now, since=since)
        self._status[name] = now
        log.info(
            "child.state", extra={"child": name, "state": str(state), "child_pid": pid, "exit_code": now.exit_code}
        )
        if self._state_file is not None:
            _write_state(self._state_file, self.status())
        if self._changed is not None:
            self._changed(now)


class _Kept:
    """One child and the process that it is at the moment."""

    def __init__(self, child: Child, note: Callable[[Status], None]) -> None:
        self.child = child
        self._note = note
        self._ending = asyncio.Event()
        self._gone = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._line: socket.socket | None = None
        self._pid: int | None = None
        self._restarts = 0
        self._exit_code: int | None = None
        self._recycling = False
        self._recycles = 0
        self.spawned_at: float | None = None
        self._ready_since: float | None = None

    async def keep(self) -> None:
        """Start the process again each time that it ends, until `end`. Raises `ChildFailed`."""
        failures, was_ready = 0, False
        while not self._ending.is_set():
            await self._run_once()
            healthy = self._ready_since is not None
            was_ready = was_ready or healthy
            if self._ending.is_set():
                break
            if self._recycling:
                self._recycling, failures = False, 0
                self._recycles += 1
                continue
            if healthy and time.monotonic() - (self._ready_since or 0) >= self.child.backoff.healthy_s:
                failures = 0
            failures += 1
            if not was_ready and self.child.attempts_max is not None and failures >= self.child.attempts_max:
                self._say(State.FAILED)
                raise ChildFailed(self._diagnosis(failures))
            self._restarts += 1
            self._say(State.BACKOFF)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), self.child.backoff.pause_s(failures))
        self._say(State.STOPPED)

    async def end(self, task: asyncio.Task[None]) -> None:
        """Ask the process to end, kill it when its time is up, and wait until it is no longer kept."""
        self._ending.set()
        await self._drain()
        await task

    async def recycle(self) -> None:
        self._recycling = self._process is not None
        await self._drain()

    def kill(self) -> None:
        """Kill the process and all that it started: the keeper does it when our end of the line closes."""
        if self._line is not None:
            self._line.close()
            self._line = None

    async def _drain(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._say(State.STOPPING)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._gone.wait(), self.child.stop_timeout_s)
        except TimeoutError:
            log.warning("child.killed", extra={"child": self.child.name, "after_s": self.child.stop_timeout_s})
            self.kill()
            await self._gone.wait()

    async def _run_once(self) -> None:
        """One life of the process: from its start until it has ended and nothing of it is left."""
        self._ready_since, self._pid = None, None
        self._gone.clear()
        self._say(State.STARTING)
        try:
            await self._start()
            if self._ending.is_set():  # told to stop before there was a process to tell
                self.kill()
            self._exit_code = await self._watch()
        finally:
            self.kill()
            await self._reap()
            self._process, self._pid, self.spawned_at = None, None, None
            self._gone.set()

    async def _start(self) -> None:
        if self.child.prepare is not None:
            self.child.prepare()
        self.spawned_at = time.time()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._line = ours
        with theirs, open_log(self.child.log) as output:
            keeper = (sys.executable, "-I", "-S", str(KEEPER), str(theirs.fileno()))
            self._process = await asyncio.create_subprocess_exec(
                *(*keeper, *self.child.argv),
                env=dict(self.child.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        if self.child.yields:
            yield_to_others(self._process.pid, self.child.yields)
        told = await asyncio.get_running_loop().sock_recv(ours, 32)
        self._pid = int(told) if told.strip() else None
        self._say(State.STARTING)

    async def _watch(self) -> int:
        """Until the process has ended; kill it when it is not ready in time, or has fallen silent."""
        assert self._process is not None
        deadline = time.monotonic() + self.child.ready_timeout_s
        while True:
            with suppress(TimeoutError):
                code = await asyncio.wait_for(self._process.wait(), self.child.check_every_s)
                return code if code >= 0 else 128 - code
            if self._line is None or self._ending.is_set() or self._recycling:
                continue
            if self._ready_since is not None and self.child.silent_s_max is None:
                continue
            if await self._is_ready():
                deadline = time.monotonic() + (self.child.silent_s_max or 0)
                if self._ready_since is None and self._process.returncode is None:
                    self._ready_since = time.monotonic()
                    self._say(State.READY)
            elif time.monotonic() > deadline:
                log.warning("child.not_ready", extra={"child": self.child.name})
                self.kill()

    async def _is_ready(self) -> bool:
        try:
            return await asyncio.wait_for(self.child.ready(), _CHECK_TIMEOUT_S)
        except (OSError, TimeoutError, EngineError):
            return False

    async def _reap(self) -> None:
        """Wait for the keeper. Were it killed itself, its group is killed by us, so that nothing is left even then."""
        if self._process is None:
            return
        await self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _say(self, state: State) -> None:
        self._note(
            Status(
                name=self.child.name,
                state=state,
                since=time.time(),
                pid=self._pid,
                restarts=self._restarts,
                recycles=self._recycles,
                exit_code=self._exit_code,
            )
        )

    def _diagnosis(self, attempts: int) -> str:
        return (
            f"{self.child.name} did not become ready in {attempts} starts (last exit code {self._exit_code}). "
            f"The end of {self.child.log}:\n{log_tail(self.child.log)}"
        )


def _write_state(path: Path, statuses: Sequence[Status]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_bytes(orjson.dumps({"pid": os.getpid(), "children": [asdict(status) for status in statuses]}))
    building.replace(path)
