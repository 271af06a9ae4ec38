"""The quota file's form on disk: made, read and re-laid here; counted in by `ledger`.

Row 0 is the header: a magic number and the number of workers. Row n is the key of index n: a slot of eight 64-bit
integers for each worker, one cache line each. Re-laying writes a new file and renames it, so a crash leaves one or the
other. Locks are POSIX locks on a file beside it, which is never replaced: a byte for each worker's place, one for the
layout.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.access import quota
from gateway.access.errors import LedgerCorrupt, LedgerInUse, LedgerUnavailable
from gateway.access.quota import Slot

WORKERS_MAX: Final = 256
KEYS_MAX: Final = 1 << 20
SLOT: Final = struct.Struct(f"{quota.SLOT_FIELDS}q")

_MAGIC: Final = int.from_bytes(b"GLQUOTA1", "little")
_HEADER: Final = struct.Struct("2q")
_ROWS_STEP: Final = 1024
_LAYOUT_BYTE: Final = WORKERS_MAX  #: after the places of the workers


def row_of(workers: int) -> struct.Struct:
    """A key's whole row: every worker's slot."""
    return struct.Struct(f"{workers * quota.SLOT_FIELDS}q")


def take_place(path: Path, worker: int, workers: int, window: int) -> tuple[int, mmap.mmap]:
    """Lock place `worker` of `workers` and map the file, made or re-laid where needed.

    Returns the descriptor that holds the lock until it is closed, and the map. Raises LedgerInUse when the place is
    taken or a gateway of another size runs, LedgerCorrupt, and LedgerUnavailable when there is no space.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    locks = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _layout(locks):
            if not _try_lock(locks, worker, 1):
                raise LedgerInUse(path, f"Place {worker}")
            _fit(path, locks, worker, workers, window)
            return locks, _map(path, workers, _ROWS_STEP)
    except BaseException:
        os.close(locks)
        raise


def longer(path: Path, locks: int, workers: int, index: int) -> mmap.mmap:
    """The file mapped far enough for the key `index`; another worker may have made it so already.

    Raises LedgerUnavailable when there is no space, or no end of keys.
    """
    if index < 1:
        raise ValueError("a key that was never stored has no row in the ledger")
    if index >= KEYS_MAX:
        raise LedgerUnavailable(path, f"it holds at most {KEYS_MAX} keys")
    with _layout(locks):
        return _map(path, workers, (index // _ROWS_STEP + 1) * _ROWS_STEP)


def _map(path: Path, workers: int, rows: int) -> mmap.mmap:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = max(os.fstat(fd).st_size, rows * workers * SLOT.size)
            os.posix_fallocate(fd, 0, size)  # a hole in a map is a SIGBUS once the disk is full
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)
    except OSError as error:
        raise LedgerUnavailable(path, error.strerror or str(error)) from error


def _fit(path: Path, locks: int, worker: int, workers: int, window: int) -> None:
    """See that the file exists and has our number of workers; called with the layout locked."""
    laid_for = _workers_of(path)
    if laid_for == workers:
        return
    try:
        if laid_for is not None and not _try_lock(locks, 0, WORKERS_MAX):
            raise LedgerInUse(path, f"The layout for {laid_for} workers")
        _rewrite(path, workers, () if laid_for is None else _folded(path, laid_for, window))
    finally:
        _unlock(locks, 0, worker)
        _unlock(locks, worker + 1, WORKERS_MAX - worker - 1)


@contextmanager
def _layout(locks: int) -> Iterator[None]:
    """Alone in changing the file's layout or length: for microseconds, or while a file is written."""
    fcntl.lockf(locks, fcntl.LOCK_EX, 1, _LAYOUT_BYTE)
    try:
        yield
    finally:
        _unlock(locks, _LAYOUT_BYTE, 1)


def _workers_of(path: Path) -> int | None:
    """For how many workers the file is laid out; None where there is no file. Raises LedgerCorrupt."""
    try:
        with path.open("rb") as file:
            header, size = file.read(_HEADER.size), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    if len(header) < _HEADER.size:
        raise LedgerCorrupt(path, f"it is {size} bytes long, too short for a header")
    magic, workers = _HEADER.unpack(header)
    if magic != _MAGIC or not 1 <= workers <= WORKERS_MAX:
        raise LedgerCorrupt(path, "its header is not a quota ledger's")
    if size % (workers * SLOT.size):
        raise LedgerCorrupt(path, f"its {size} bytes are no whole number of rows for {workers} workers")
    return int(workers)


def _folded(path: Path, workers: int, window: int) -> Iterator[Slot]:
    """Each key's slots as one, for a file that is to be laid out anew."""
    rows = row_of(workers).iter_unpack(path.read_bytes())
    next(rows)  # the header's
    return (quota.folded(values, window) for values in rows)


def _rewrite(path: Path, workers: int, slots: Iterable[Slot]) -> None:
    """Lay the file out for `workers`, each slot going to the first of them; all of it or nothing."""
    stride = workers * SLOT.size
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(_HEADER.pack(_MAGIC, workers).ljust(stride, b"\0"))
            for slot in slots:
                file.write(SLOT.pack(*slot).ljust(stride, b"\0"))
            file.flush()
            os.posix_fallocate(file.fileno(), 0, _ROWS_STEP * stride)
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise LedgerUnavailable(path, error.strerror or str(error)) from error


def _try_lock(fd: int, start: int, length: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return False
    return True


def _unlock(fd: int, start: int, length: int) -> None:
    if length:  # 0 would mean to the end of the file
        fcntl.lockf(fd, fcntl.LOCK_UN, length, start)
