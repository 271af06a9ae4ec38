"""The few file calls that the spool lives on, in one place, so that tests can make each of them fail."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


class Disk:
    """Thin names over `os`. Every method raises OSError."""

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sync_folder(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)

    def replace(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o600)

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY)

    def lock(self, handle: int) -> None:
        """Take the file for this process; BlockingIOError when another holds it. Freed by close and by any death."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, handle: int, data: bytes) -> int:
        """How many bytes were taken: at least one, maybe not all."""
        taken = os.write(handle, data)
        if not taken:
            raise OSError(errno.ENOSPC, "the disk took nothing")
        return taken

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        os.fdatasync(handle)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        return os.pread(handle, size, offset)

    def stat(self, handle: int) -> os.stat_result:
        return os.fstat(handle)

    def list(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def close(self, handle: int) -> None:
        os.close(handle)
