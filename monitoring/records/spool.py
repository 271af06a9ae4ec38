"""Append-only files between a process that must not wait and the database that may be away.

Each process writes files of its own, whole lines at a time, straight to the kernel: what was appended survives
`kill -9`. The writer holds a lock for as long as it lives, so a reader knows which files will still grow. A reader
looks at complete lines only, and a writer never takes a complete line back: the two need nothing else from each other.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitoring.records.disk import Disk
from monitoring.records.errors import SpoolFull
from monitoring.records.events import uuid7

SUFFIX = ".spool"
_OPEN_TRIES = 3


class Spool:
    """This process's own files, `<owner>-<boot>-<n>.spool`. Safe to call from several threads.

    A file is rotated at the first append after `rotate_bytes` or `rotate_s`. `clock` gives seconds, monotonic.
    """

    def __init__(
        self,
        folder: Path,
        owner: str,
        *,
        rotate_bytes: int = 8 << 20,
        rotate_s: float = 60,
        clock: Callable[[], float] = time.monotonic,
        disk: Disk | None = None,
    ) -> None:
        self._folder = folder
        self._stem = f"{owner}-{uuid7()}"
        self._rotate_bytes, self._rotate_s = rotate_bytes, rotate_s
        self._clock, self._disk = clock, disk or Disk()
        self._turn = threading.Lock()
        self._count = 0
        self._handle: int | None = None
        self._size = 0
        self._opened_at = 0.0
        self._entry_synced = False

    def append(self, lines: Sequence[bytes], *, sync: bool = False) -> None:
        """Write whole lines, each with its newline; `sync` waits until they are on the disk itself.

        Raises SpoolFull; its `written` says how many of the lines are in all the same. Half a line is never left before
        another one.
        """
        for line in lines:
            if not line or line.find(b"\n") != len(line) - 1:
                raise ValueError(f"A line must hold one newline, at its end; found {line[:80]!r}.")
        with self._turn:
            written = 0
            try:
                handle = self._current()
                written = self._write(handle, lines)
                if sync:
                    self._sync(handle, len(lines))
            except OSError as problem:
                raise SpoolFull(problem, written=written, lines=len(lines)) from problem

    def close(self) -> None:
        """Let go of the file: the ingester may finish and remove it. A later append opens another."""
        with self._turn:
            self._abandon()

    def _current(self) -> int:
        """The open file, or a new one when it is time. Where none can be opened the old one goes on."""
        handle = self._handle
        fresh = self._size < self._rotate_bytes and self._clock() - self._opened_at < self._rotate_s
        if handle is not None and fresh:
            return handle
        try:
            opened = self._open()
        except OSError:
            if handle is None:
                raise
            return handle
        self._handle, self._size, self._opened_at, self._entry_synced = opened, 0, self._clock(), False
        if handle is not None:
            self._disk.close(handle)
        return opened

    def _open(self) -> int:
        """A new file that is ours. A reader that saw it before it was locked may have removed it: then take another."""
        disk = self._disk
        disk.make_folder(self._folder)
        for _ in range(_OPEN_TRIES):
            self._count += 1
            handle = disk.create(self._folder / f"{self._stem}-{self._count}{SUFFIX}")
            try:
                disk.lock(handle)
                if disk.stat(handle).st_nlink:
                    return handle
            except BlockingIOError:
                pass
            except OSError:
                disk.close(handle)
                raise
            disk.close(handle)
        raise BlockingIOError(f"Another process locked or removed {_OPEN_TRIES} new files in {self._folder} at once.")

    def _write(self, handle: int, lines: Sequence[bytes]) -> int:
        data = b"".join(lines)
        done = 0
        try:
            while done < len(data):
                done += self._disk.write(handle, data[done:] if done else data)
        except OSError as problem:
            whole = data.rfind(b"\n", 0, done) + 1
            self._size += whole
            self._cut(handle)
            raise SpoolFull(problem, written=data.count(b"\n", 0, whole), lines=len(lines)) from problem
        self._size += done
        return len(lines)

    def _cut(self, handle: int) -> None:
        """Take half a line back. Where even that fails the file is left: its torn tail is the last thing in it."""
        try:
            self._disk.truncate(handle, self._size)
        except OSError:
            self._abandon()

    def _sync(self, handle: int, lines: int) -> None:
        """After a failed sync the kernel forgets what it could not write, so that file is not used again."""
        try:
            self._disk.sync(handle)
            if not self._entry_synced:
                self._disk.sync_folder(self._folder)
                self._entry_synced = True
        except OSError as problem:
            self._abandon()
            raise SpoolFull(problem, written=0, lines=lines) from problem

    def _abandon(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._disk.close(handle)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Complete lines of a spool file and the offset after the last of them."""

    lines: list[bytes]
    end: int


class SpoolFile:
    """One file as the ingester sees it."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path, self.name = path, path.name
        self._disk = disk

    def chunks(self, offset: int, *, lines_max: int, bytes_max: int = 1 << 20) -> Iterator[Chunk]:
        """Complete lines from `offset` on, at most `lines_max` at once; reads `bytes_max` at once. Raises OSError."""
        handle = self._disk.open(self.path)
        try:
            size = bytes_max
            while data := self._disk.read(handle, size, offset):
                lines = io.BytesIO(data[: data.rfind(b"\n") + 1]).readlines()
                for start in range(0, len(lines), lines_max):
                    some = lines[start : start + lines_max]
                    offset += sum(map(len, some))
                    yield Chunk(some, offset)
                if not lines and len(data) < size:
                    return  # nothing, or the beginning of a line that is still being written
                size = bytes_max if lines else size * 2
        finally:
            self._disk.close(handle)

    def finish(self, offset: int) -> int | None:
        """Remove the file if its writer is gone and no complete line follows `offset`. Raises OSError.

        Returns the bytes of torn tail that went with it, or None when the file stays.
        """
        handle = self._disk.open(self.path)
        try:
            try:
                self._disk.lock(handle)
            except BlockingIOError:
                return None
            tail = self._disk.stat(handle).st_size - offset
            if tail > 0 and self._newline_after(handle, offset):
                return None
            self._disk.unlink(self.path)
            return max(tail, 0)
        finally:
            self._disk.close(handle)

    def _newline_after(self, handle: int, offset: int) -> bool:
        while data := self._disk.read(handle, 1 << 20, offset):
            if b"\n" in data:
                return True
            offset += len(data)
        return False


def read(folder: Path, disk: Disk | None = None) -> Iterator[SpoolFile]:
    """Every spool file in the folder, by name. Raises OSError."""
    disk = disk or Disk()
    for name in disk.list(folder):
        if name.endswith(SUFFIX):
            yield SpoolFile(folder / name, disk)
