"""Runs one piece of work in a fork that is confined, watched and killed: whatever it does, the parent goes on."""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from training.probe.sandbox import KINDS, Bounds, adopt_orphans, close_all_but, confine

_ANSWER, _ERROR = b"A", b"E"
_MESSAGE_MAX = 500
_CHUNK = 1 << 16
_STRAYS_MAX = 1000
_DEADLINE = "it was still running at its deadline"
#: What is bound to its processor gets more than this share of one, unless the machine is far too busy for a verdict.
_STARVED_SHARE = 0.25
#: Where others are served from the same processors, streams stand still for as long as a try has one: its share is cut
#: into pieces that nobody notices. A low priority does not do that; beside an engine whose processes spun it
#: got none at all.
SPELL_S, REST_S = 0.003, 0.009
#: What goes wrong inside torch, PEFT, safetensors (whose error is a plain Exception of its own) and Python. Anything
#: else ends the child without a word, which is an answer too.
_FORESEEN = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


class CannotFork(OSError):
    """The machine has no room for one more process now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a try came to: its bytes, or how it failed; with the wall and the processor time it took.

    `granted` says how it was confined, see `confine`; a child that died could not tell. `starved`: at its deadline it
    had hardly had a processor, or waited for a disk, which says nothing of the adapter.
    """

    answer: bytes = b""
    failed: str = ""
    granted: frozenset[str] = frozenset()
    seconds: float
    cpu_s: float
    starved: bool = False


def attempt(
    work: Callable[[], bytes],
    bounds: Bounds,
    readable: tuple[Path, ...] = (),
    watch: int = -1,
    *,
    gently: bool = False,
) -> Outcome:
    """Run `work` in a child that may read `readable` and nothing else of ours; never raises for what it does.

    When the descriptor `watch` is closed on its other side, nobody wants the answer and the child is killed. `gently`,
    it works in short spells, and has as much longer until its deadline. Raises CannotFork.
    """
    began = time.monotonic()
    adopt_orphans()
    before = _children()
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise CannotFork(*error.args) from error
    if child == 0:
        _be_the_child(work, bounds, readable, writing)
    os.close(writing)
    ended = os.pidfd_open(child)
    try:
        until, paced = began + bounds.timeout_s, child if gently else 0
        data, why = _listen(reading, ended, watch, until, bounds.answer_bytes_max, paced)
    finally:
        os.kill(child, signal.SIGKILL)  # it is ours until it is waited for: its number cannot be another's
        _, status, used = os.wait4(child, 0)
        _end_strays(before)
        os.close(reading)
        os.close(ended)
    seconds, cpu_s = time.monotonic() - began, used.ru_utime + used.ru_stime
    answer, failed = _judge(data[:1], data[2:], why, os.waitstatus_to_exitcode(status))
    granted = frozenset(kind for bit, kind in enumerate(KINDS) if data[1:2] and data[1] >> bit & 1)
    starved = why == _DEADLINE and cpu_s < _STARVED_SHARE * bounds.timeout_s
    return Outcome(answer=answer, failed=failed, granted=granted, seconds=seconds, cpu_s=cpu_s, starved=starved)


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # kernels may be built without it, and threads end
            found |= {int(number) for number in (task / "children").read_text().split()}
    return found


def _end_strays(before: set[int]) -> None:
    """What the child started is ours now that it is dead, and goes as well; also what such a one starts meanwhile."""
    for _ in range(_STRAYS_MAX):
        if not (strays := _children() - before):
            return
        for stray in strays:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(stray, signal.SIGKILL)
                os.waitpid(stray, 0)


def _listen(reading: int, ended: int, watch: int, until: float, bytes_max: int, paced: int) -> tuple[bytes, str]:
    """Everything the child wrote until it ended, or why it must be ended. The child `paced`, if not 0, is made to rest
    between spells of work, which its deadline does not count."""
    data = bytearray()
    waiting = select.poll()
    waiting.register(reading, select.POLLIN)
    waiting.register(ended, select.POLLIN)
    if watch >= 0:
        waiting.register(watch, select.POLLRDHUP)
    left = {reading, ended}
    while left:
        if (rest_s := until - time.monotonic()) <= 0:
            return b"", _DEADLINE
        found = waiting.poll(min(rest_s, SPELL_S if paced else rest_s) * 1e3)
        if paced and not found:
            os.kill(paced, signal.SIGSTOP)
            time.sleep(REST_S)
            os.kill(paced, signal.SIGCONT)
            until += REST_S
        for descriptor, _ in found:
            if descriptor == watch:
                return b"", "nobody waits for it any more"
            if descriptor == reading and (chunk := os.read(reading, _CHUNK)):
                data += chunk
                if len(data) > bytes_max:
                    return b"", f"it answered with more than {bytes_max} bytes"
                continue
            waiting.unregister(descriptor)
            left.discard(descriptor)
    return bytes(data), ""


def _judge(kind: bytes, said: bytes, why: str, code: int) -> tuple[bytes, str]:
    """(answer, failure): exactly one of them says something."""
    if why:
        return b"", why
    if code < 0:
        told = "it used up its processor time" if -code == signal.SIGXCPU else f"it was killed by {_named(-code)}"
        return b"", told
    if code or kind not in (_ANSWER, _ERROR):
        return b"", f"it ended with code {code} and no answer"
    if kind == _ERROR:
        return b"", said.decode(errors="replace")[:_MESSAGE_MAX] or "it failed without a word"
    return said, ""


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _be_the_child(work: Callable[[], bytes], bounds: Bounds, readable: tuple[Path, ...], writing: int) -> NoReturn:
    """Never returns into the parent's stack, whatever happens."""
    code, granted = 1, 0
    try:
        gc.disable()  # a collection would write to every page that is shared with the parent
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            close_all_but(2, writing)
            for got in confine(bounds, readable):
                granted |= 1 << KINDS.index(got)
            kind, said = _ANSWER, work()
        except _FORESEEN as error:
            kind, said = _ERROR, _told(error).encode(errors="replace")
        _write(writing, kind + bytes([granted]) + said)
        code = 0
    finally:
        os._exit(code)


def _told(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "it ran out of the memory that it may use"
    first = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {first}"[:_MESSAGE_MAX]


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:_CHUNK]) :]
