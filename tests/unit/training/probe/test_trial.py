"""Work that dies, hangs, swells, pries or lies, in a fork: the parent always learns what happened, and goes on."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from training.probe.sandbox import Bounds
from training.probe.trial import CannotFork, attempt

BOUNDS = Bounds(timeout_s=20.0, memory_bytes=256 << 20, answer_bytes_max=1 << 20)
SHORT = Bounds(timeout_s=0.3)


def offspring() -> set[str]:
    """Children of this process, the dead that nobody waited for included: other tests may have some running."""
    return set(" ".join(each.read_text() for each in Path("/proc/self/task").glob("*/children")).split())


def exits(code: int) -> bytes:
    os._exit(code)


def dies(number: int) -> bytes:
    os.kill(os.getpid(), number)
    return b"not any more"


def swells() -> bytes:
    return bytes(1 << 30)


def raises(error: Exception) -> bytes:
    raise error


def hangs() -> bytes:
    while True:
        time.sleep(1)


def spins() -> bytes:
    while True:
        pass


def granted() -> frozenset[str]:
    """What the sandbox gets from the kernel under these tests."""
    return attempt(lambda: b"", BOUNDS).granted


def test_work_that_ends_gives_its_bytes_and_what_it_cost() -> None:
    done = attempt(lambda: b"x" * 200_000, BOUNDS)
    assert (done.answer, done.failed) == (b"x" * 200_000, "")
    assert done.cpu_s > 0
    assert 0 < done.seconds < BOUNDS.timeout_s


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "a crash": (lambda: dies(signal.SIGSEGV), "killed by SIGSEGV"),
    "an odd signal": (lambda: dies(signal.SIGRTMIN + 1), "killed by signal 35"),
    "an exit": (lambda: exits(7), "ended with code 7 and no answer"),
    "a silent exit": (lambda: exits(0), "ended with code 0 and no answer"),
    "an error": (lambda: raises(ValueError("size mismatch\nat great length")), "ValueError: size mismatch"),
    "an unforeseen error": (lambda: raises(StopAsyncIteration()), "ended with code 1 and no answer"),
    "too much memory": (swells, "ran out of the memory"),
    "torch's way to say so": (
        lambda: raises(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")),
        "ran out of the memory",
    ),
    "too long an answer": (lambda: bytes(2 << 20), "more than 1048576 bytes"),
    "an endless error": (lambda: raises(ValueError("x" * 10_000)), "ValueError: xxx"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_whatever_goes_wrong_is_told_in_one_line(kind: str) -> None:
    work, said = WRONG[kind]
    done = attempt(work, BOUNDS)
    assert done.answer == b""
    assert said in done.failed
    assert len(done.failed) <= 500
    assert "\n" not in done.failed


@pytest.mark.slow
@pytest.mark.parametrize("work", [hangs, spins])
def test_work_that_does_not_end_is_ended_at_its_deadline(work: Callable[[], bytes]) -> None:
    done = attempt(work, SHORT)
    assert done.failed == "it was still running at its deadline"
    assert done.seconds < 5


@pytest.mark.slow
def test_work_that_hardly_had_a_processor_is_told_from_work_that_never_ends() -> None:
    assert attempt(hangs, Bounds(timeout_s=1.5)).starved
    assert not attempt(spins, Bounds(timeout_s=1.5)).starved
    assert not attempt(lambda: b"", BOUNDS).starved


@pytest.mark.slow
def test_work_that_hangs_after_its_answer_is_ended_too() -> None:
    def work() -> bytes:
        threading.Thread(target=time.sleep, args=(60,)).start()
        os.close(2)
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"A\0first")
                os.close(descriptor)
            except OSError:
                continue
        return hangs()

    assert attempt(work, SHORT).failed == "it was still running at its deadline"


def test_nobody_waits_when_the_asking_side_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        done = attempt(hangs, BOUNDS, watch=theirs.fileno())
    assert done.failed == "nobody waits for it any more"


def test_a_question_that_waits_does_not_end_the_work() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"the next one\n")
        assert attempt(lambda: b"ok", BOUNDS, watch=theirs.fileno()).answer == b"ok"


def test_no_child_and_no_descriptor_is_left() -> None:
    before, children = os.listdir("/proc/self/fd"), offspring()
    for work, _ in WRONG.values():
        attempt(work, BOUNDS)
    assert os.listdir("/proc/self/fd") == before
    assert offspring() == children


@pytest.mark.slow
def test_what_a_child_started_does_not_outlive_it() -> None:
    def leaves() -> bytes:
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
        return hangs()

    children = offspring()
    attempt(leaves, SHORT)
    assert offspring() == children  # they would be ours


def test_a_machine_without_room_is_not_the_adapters_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fork", full)
    with pytest.raises(CannotFork, match="temporarily unavailable"):
        attempt(lambda: b"", BOUNDS)
    assert os.listdir("/proc/self/fd") == before


def test_limits_and_privileges_are_always_taken() -> None:
    assert {"limits", "privileges"} <= granted()


def test_it_reads_its_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    if "files" not in granted():
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"weights")
    (tmp_path / "admin.key").write_bytes(b"secret")
    folder = tmp_path / "adapter"
    assert attempt((folder / "weights").read_bytes, BOUNDS, (folder,)).answer == b"weights"
    for beside in (tmp_path / "admin.key", folder / ".." / "admin.key", Path("/etc/passwd")):
        assert "PermissionError" in attempt(beside.read_bytes, BOUNDS, (folder,)).failed


def test_it_writes_nowhere(tmp_path: Path) -> None:
    def work() -> bytes:
        (tmp_path / "new").write_bytes(b"bytes")
        return b"written"

    assert attempt(work, BOUNDS, (tmp_path,)).failed
    assert not (tmp_path / "new").exists() or (tmp_path / "new").stat().st_size == 0


def test_it_reaches_no_network() -> None:
    if "network" not in granted():
        pytest.skip("this machine forbids both namespaces and Landlock's network rules")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        done = attempt(lambda: bytes(socket.create_connection(address, 1).fileno()), BOUNDS)
    assert "Error" in done.failed


def test_it_starts_no_program() -> None:
    if "files" not in granted():
        pytest.skip("this kernel has no Landlock")

    def work() -> bytes:
        os.execv("/bin/true", ["true"])

    assert "PermissionError" in attempt(work, BOUNDS).failed


def test_it_gains_no_privileges_and_holds_no_descriptor_of_ours() -> None:
    get_no_new_privs = 39
    with socket.socket() as ours:
        held = ours.fileno()
        done = attempt(lambda: bytes([ctypes.CDLL(None).prctl(get_no_new_privs, 0, 0, 0, 0)]), BOUNDS)
        assert done.answer == b"\1"
        assert "Bad file descriptor" in attempt(lambda: bytes(os.fstat(held).st_uid), BOUNDS).failed


def test_a_gentle_try_rests_between_its_spells_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def works() -> bytes:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        return b"done"

    sent: list[int] = []
    kill = os.kill

    def noted(pid: int, number: int) -> None:
        sent.append(number)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", noted)
    assert attempt(works, BOUNDS, gently=True).answer == b"done"
    rests = sent.count(signal.SIGSTOP)
    assert rests >= 3
    assert sent.count(signal.SIGCONT) == rests
    sent.clear()
    assert attempt(works, BOUNDS).answer == b"done"
    assert signal.SIGSTOP not in sent


def test_a_gentle_try_that_hangs_ends_at_its_deadline() -> None:
    def hangs() -> bytes:
        time.sleep(60)
        return b""

    assert attempt(hangs, Bounds(timeout_s=0.3), gently=True).failed == "it was still running at its deadline"
