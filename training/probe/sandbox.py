"""Takes from the calling process what a first forward does not need. Standard library only; Linux; never undone."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
#: Landlock's system calls have the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
#: By version of the interface: how many kinds of access to files it knows.
_FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
_FILE_BITS_NOW = 16
_BIND_AND_CONNECT = 0b11
_SIGNALS_AND_SOCKETS = 0b11

#: What a child may be denied: the first two always, the others where the kernel lets us.
KINDS = ("limits", "privileges", "network", "files")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one try may use. `memory_bytes` comes on top of what the process has mapped already."""

    timeout_s: float = 30.0
    memory_bytes: int = 2 << 30
    answer_bytes_max: int = 16 << 20
    descriptors_max: int = 64


def confine(bounds: Bounds, readable: Sequence[Path]) -> frozenset[str]:
    """Bound this process, cut its network, leave it only `readable` and Python's own files, read-only.

    Returns which of `KINDS` are in force.
    """
    _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _limit(bounds)
    granted = {"limits", "privileges"}
    # A namespace of its own has no interface, not even a loopback. Containers often forbid making one.
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        granted.add("network")
    _call(_libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return frozenset(granted | _landlock(readable))


def adopt_orphans() -> None:
    """Become the parent of what a child leaves behind, for the parent of a confined child."""
    _call(_libc.prctl, _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def close_all_but(*kept: int) -> None:
    """Close every descriptor except these: what the parent had open is not for the child."""
    ends = sorted(kept)
    for low, high in zip([-1, *ends], [*ends, os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)


def _limit(bounds: Bounds) -> None:
    seconds = int(bounds.timeout_s) + 1
    most = {
        resource.RLIMIT_AS: _mapped_bytes() + bounds.memory_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: bounds.descriptors_max,
    }
    for kind, value in most.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _mapped_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _landlock(readable: Sequence[Path]) -> set[str]:
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return set()
    files = (1 << _FILE_BITS.get(version, _FILE_BITS_NOW)) - 1
    parts = [files, *([_BIND_AND_CONNECT] if version >= 4 else []), *([_SIGNALS_AND_SOCKETS] if version >= 6 else [])]
    wanted = struct.pack(f"{len(parts)}Q", *parts)
    rules = _call(_libc.syscall, _CREATE_RULESET, wanted, ctypes.c_size_t(len(wanted)), 0)
    try:
        for path in [*readable, *_python()]:
            _allow_reading(rules, path)
        _call(_libc.syscall, _RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return {"files", "network"} if version >= 4 else {"files"}


def _allow_reading(rules: int, path: Path) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, beneath)
        _call(_libc.syscall, _ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(beneath)


def _python() -> list[Path]:
    """What a late import reads. The folder of this program is not among them: its secrets may lie beside it."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return [*{Path(sysconfig.get_paths()[kind]) for kind in kinds}, Path("/usr/lib"), Path("/lib"), Path("/lib64")]


def _call(function: object, *arguments: object) -> int:
    result: int = function(*arguments)  # type: ignore[operator]
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the sandbox: {os.strerror(number)}")
    return result
