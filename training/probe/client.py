"""The side of the probe that needs no torch: starts the process, asks it, and turns its words into values."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.checks.probe import EFFECT_MIN, Recorded, failed, recorded
from adapters.errors import ProbeAway
from training.probe.sandbox import KINDS
from training.probe.trial import REST_S, SPELL_S

log = logging.getLogger("graftline")

BY = "peft"
#: Importing torch and unpacking a large base takes minutes on a busy machine.
START_TIMEOUT_S = 600.0
#: On top of a try's own deadline: the fork, the sandbox and the way here.
_MARGIN_S = 10.0
_LINE_BYTES_MAX = 64 << 20
_TAIL_BYTES = 2000
#: How much longer a try takes that rests between its spells, at most.
_GENTLY = 1 + 2 * REST_S / SPELL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hello: Mapping[str, Any]


class WarmProber:
    """A `Prober` over `python -m training.probe`, started when it is first needed; one adapter at a time."""

    def __init__(
        self, base: Path, log: Path, *, timeout_s: float = 30.0, memory_gib: float = 2.0, idle_s: float = 600.0
    ) -> None:
        """`log` gets what the process writes. After `idle_s` without a probe it ends, and its memory is free."""
        self._base = base
        self._log = log
        self._timeout_s = timeout_s
        self._bounds = ("--timeout-s", str(timeout_s), "--memory-gib", str(memory_gib), "--idle-s", str(idle_s))
        self._lock = asyncio.Lock()
        self._running: _Process | None = None
        self._count = 0

    async def probe(self, folder: Path, *, digest: str, may_do_nothing: bool = False, gently: bool = False) -> Recorded:
        """See `Prober`; `digest` only names the adapter in errors."""
        began = time.monotonic()
        placed = _placed(folder, digest)
        async with self._lock:
            running, answer = await self._ask(placed, gently=gently)
        if away := answer.get("away"):
            raise ProbeAway(f"The probe of {digest} could not run: {away}. It is tried again.")
        if why := answer.get("failed"):
            raise failed(str(why))
        try:
            found = [[math.nan if value is None else float(value) for value in row] for row in answer["rows"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ProbeAway(f"The probe process answered in words that are not its own: {error!r}.") from error
        hello = running.hello
        seconds, least = time.monotonic() - began, 0.0 if may_do_nothing else EFFECT_MIN
        return recorded(hello["prompts"], found, hello["base"], seconds=seconds, by=BY, effect_min=least)

    async def close(self) -> None:
        async with self._lock:
            await self._end()

    async def _ask(self, folder: str, *, gently: bool) -> tuple[_Process, Mapping[str, Any]]:
        self._count += 1
        request = json.dumps({"id": self._count, "folder": folder, "gently": gently}).encode() + b"\n"
        for _ in range(2):  # once more if it had just gone to sleep
            running = self._running or await self._start()
            try:
                async with asyncio.timeout(self._timeout_s * (_GENTLY if gently else 1) + _MARGIN_S):
                    running.writer.write(request)
                    await running.writer.drain()
                    return running, await self._answer(running)
            except (EOFError, OSError) as error:  # TimeoutError is an OSError
                slept = isinstance(error, EOFError | ConnectionError) and await self._end() == 0
                if not slept:
                    await self._end()
                    raise ProbeAway(f"The probe process went away: {self._tail()}") from error
            except BaseException:  # cancelled: its answer would be taken for that of the next question
                self._kill()
                raise
        raise ProbeAway("The probe process ends as soon as it has started.")

    async def _answer(self, running: _Process) -> Mapping[str, Any]:
        answer = _object(await _line(running.reader))
        if answer.get("id") != self._count:
            raise EOFError("an answer to another question")
        return answer

    async def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "training.probe", "--base", str(self._base), "--fd", str(theirs.fileno())]
        with theirs, self._log.open("ab") as written:
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    *self._bounds,
                    stdin=subprocess.DEVNULL,
                    stdout=written,
                    stderr=written,
                    pass_fds=(theirs.fileno(),),
                    env=_environment(self._log.parent),
                )
            except OSError as error:
                ours.close()
                raise ProbeAway(f"The probe process could not be started: {error.strerror}.") from error
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE_BYTES_MAX)
        self._running = _Process(process=process, reader=reader, writer=writer, hello={})
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                hello = _object(await _line(reader))
        except (EOFError, OSError) as error:
            await self._end()
            raise ProbeAway(f"The probe process did not get ready: {self._tail()}") from error
        except BaseException:
            self._kill()
            raise
        if missing := sorted(set(KINDS) - set(hello["confined"])):
            log.warning("this machine does not let the probe be confined in: %s", ", ".join(missing))
        self._running = _Process(process=process, reader=reader, writer=writer, hello=hello)
        return self._running

    async def _end(self) -> int | None:
        """Stop the process if there is one; returns its exit code."""
        if (running := self._running) is None:
            return None
        self._running = None
        running.writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # at the end of its input it ends by itself
                return await running.process.wait()
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        return await running.process.wait()

    def _kill(self) -> None:
        if (running := self._running) is not None:
            self._running = None
            running.writer.close()
            with contextlib.suppress(ProcessLookupError):
                running.process.kill()

    def _tail(self) -> str:
        """The last line that it wrote, and where the rest is."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{lines[-1] if lines else 'it wrote nothing'} (all of it: {self._log})"


def _placed(folder: Path, digest: str) -> str:
    """The folder as the process, which may run elsewhere in the tree, finds it."""
    if not folder.is_dir():
        raise ProbeAway(f"{folder} of {digest} is not there. Register the adapter again if it stays away.")
    return str(folder.absolute())


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except ValueError as error:
        raise EOFError("a line without an end") from error
    if not line.endswith(b"\n"):
        raise EOFError("the end of its words")
    return line


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise EOFError("no JSON") from error
    if not isinstance(found, dict):
        raise EOFError("no JSON object")
    return found


def _environment(home: Path) -> dict[str, str]:
    """None of ours: keys and tokens have no business beside a stranger's adapter."""
    return {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TOKENIZERS_PARALLELISM": "false",
    }
