"""A disk that reads slowly and keeps nothing: FUSE over a folder. `python -m loadtests.slowdisk BACK AT BYTES_PER_S`.

Reads take their time one after another, as on one spindle; writes and names are quick. The kernel forgets a file's
pages each time that it is opened, so nothing read from here was ever warm, mapped files included.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class CannotMount(Exception):
    """Slow storage cannot be made here; the message says what is missing and what to do."""

    code = "cannot_mount"
    retryable = False


@contextlib.contextmanager
def slow_disk(back: Path, at: Path, *, bytes_per_s: int) -> Iterator[Path]:
    """Mount `back` at `at`, throttled, while the block runs. Raises `CannotMount`."""
    if reason := missing():
        raise CannotMount(reason)
    back.mkdir(parents=True, exist_ok=True)
    at.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "loadtests.slowdisk", str(back), str(at), str(bytes_per_s)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        until = time.monotonic() + 10
        while not os.path.ismount(at):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                said = process.communicate()[0].decode(errors="replace")[-500:]
                raise CannotMount(f"The mount at {at} failed: {said.strip() or 'no reason given'}")
            time.sleep(0.02)
        yield at
    finally:
        subprocess.run([_unmounter(), "-u", "-z", str(at)], check=False, capture_output=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()


def missing() -> str:
    """What keeps this machine from mounting, with what to do; empty when nothing does."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened: run as root, or let the container have the device (--device /dev/fuse)."
    if not _unmounter():
        return "fusermount3 is not installed (Debian: apt-get install fuse3)."
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:  # it looks for the C library while it is imported
        return f"mfusepy cannot be used: {error} (make dev installs it; Debian: apt-get install libfuse3-3)."
    return ""


def _unmounter() -> str:
    return shutil.which("fusermount3") or shutil.which("fusermount") or ""


class Slow:
    """What FUSE calls. Paths are below `back`; an `OSError` goes to the caller as it is."""

    use_ns = True

    def __init__(self, back: Path, bytes_per_s: int) -> None:
        self._back, self._bytes_per_s = str(back), bytes_per_s
        self._spindle = threading.Lock()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = os.lstat(self._at(path))
        times = {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")
        return {**times, **{name: int(getattr(found, name)) for name in names}}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._at(path))
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_frsize")
        return {name: int(getattr(found, name)) for name in (*names, "f_namemax")}

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_APPEND)

    def create(self, path: str, mode: int, flags: int | None = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        data = os.pread(fh, size, offset)
        with self._spindle:
            time.sleep(len(data) / self._bytes_per_s)
        return data

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path) if fh is None else fh, length)
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        now = time.time_ns()
        os.utime(self._at(path), ns=times or (now, now))
        return 0

    def _at(self, path: str) -> str:
        return self._back + path


def main(back: Path, at: Path, bytes_per_s: int) -> None:
    """Serve the mount until it is taken away."""
    import mfusepy

    operations: Any = Slow(back, bytes_per_s)
    mfusepy.FUSE(operations, str(at), foreground=True, fsname="graftline-slow", allow_other=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), int(sys.argv[3]))
