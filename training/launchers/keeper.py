"""Keeps one child: started by a supervisor as `python -I -S keeper.py FD ARGV…`, it lets nothing outlive its parent.

FD is our end of a socket pair. The child's pid is written to it; when the other end closes, who started us is gone,
however it died, and everything that descends from the child is killed. As a subreaper we also inherit orphaned
grandchildren (vLLM's engine core, HTTP workers), and when the child ends, they end. SIGTERM goes to the child alone.
Exits as the child did, with 128 + the signal's number for a signal. Standard library only; Linux.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_START = 127


def main(argv: list[str]) -> int:
    """Run `argv[2:]` until it ends or the descriptor `argv[1]` is closed on the other side."""
    parent, command = int(argv[1]), argv[2:]
    os.set_inheritable(parent, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, keeper)
    signal.signal(signal.SIGTERM, lambda *_: _tell(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(parent, b"%d\n" % child)
    ended = os.pidfd_open(child)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(parent, select.POLLIN)
    ready = {descriptor for descriptor, _ in waiting.poll()}
    if ended not in ready:
        _tell(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _kill_orphans()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(command: list[str], keeper: int) -> None:
    """In the child: die with the keeper, then turn into the command."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == keeper:
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    os._exit(_CANNOT_START)


def _kill_orphans() -> None:
    """Kill what was left to us until nothing is: each that dies may leave us more."""
    while children := _children():
        for pid in children:
            _tell(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    pid = os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
        return [int(child) for child in listed.read().split()]


def _tell(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
