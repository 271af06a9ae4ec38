"""Content-addressed folders on a local disk.

A folder appears under its digest in one rename, complete and read-only, or not at all. Names that begin with a dot are
work in progress or on their way out; `sweep` removes those that a crash left behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from adapters.errors import DigestMismatch, NotFound, TooLarge, Unavailable, shown

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20


def digest_folder(folder: Path) -> str:
    """`sha256:…` over the sorted names and the digests of their bytes. Reads every file; takes flat folders only."""
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DigestMismatch(f"{shown(path.name)} in {folder} is no plain file; only plain files have a digest.")
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()} {path.name}\n")
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


class Artifacts:
    """The artifact folder of this machine. Safe for any number of processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, folder: Path, *, bytes_max: int | None = None) -> str:
        """Store a copy of a flat folder; returns its digest. Adding the same bytes twice is one artifact.

        Raises TooLarge, and Unavailable when the disk does not do its part.
        """
        with self.staged(folder, bytes_max=bytes_max) as copy:
            return self.commit(copy)

    @contextmanager
    def staged(self, folder: Path, *, bytes_max: int | None = None) -> Iterator[Path]:
        """A private copy of `folder` to look at before it is committed; removed again unless it was."""
        copy = self.root / f".new-{uuid.uuid4().hex}"
        try:
            with _disk(f"copy {folder}"):
                self.root.mkdir(parents=True, exist_ok=True)
                copy.mkdir(mode=0o700)
                _copy(folder, copy, bytes_max)
            yield copy
        finally:
            _remove(copy)

    def commit(self, copy: Path) -> str:
        """Give a staged folder its final name; returns the digest."""
        with _disk(f"store {copy.name}"):
            digest = digest_folder(copy)
            final = self.root / _hex(digest)
            _sync_folder(copy)
            try:
                copy.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self._mend(digest, copy)
            else:
                final.chmod(0o555)
            _sync_folder(self.root)
        return digest

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While this lasts nothing is deleted, by any process: for committing bytes and then naming them in a row."""
        with self._lock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def deleting(self) -> Iterator[None]:
        """While this lasts nobody is between committing bytes and naming them: what no row names is not needed."""
        with self._lock(fcntl.LOCK_EX):
            yield

    def path(self, digest: str) -> Path:
        """Where the files are. Raises NotFound."""
        folder = self.root / _hex(digest)
        with _disk(f"look at {digest}"):
            there = folder.is_dir()
        if not there:
            raise NotFound(f"The artifact {digest} is not in {self.root}. Register the adapter's folder again.")
        return folder

    def verify(self, digest: str) -> Path:
        """Read everything again and compare. Raises NotFound or DigestMismatch."""
        folder = self.path(digest)
        with _disk(f"verify {digest}"):
            if not _is_intact(folder, digest):
                raise DigestMismatch(
                    f"The files in {folder} are not those that were registered, and must not be loaded. "
                    "Register the original folder again, which mends them."
                )
        return folder

    def delete(self, digest: str) -> None:
        """Remove the bytes; nothing happens if they are not there. The caller knows that nothing needs them."""
        gone = self.root / f".gone-{uuid.uuid4().hex}"
        with _disk(f"delete {digest}"):
            folder = self.root / _hex(digest)
            if folder.is_dir():
                folder.chmod(0o755)
                folder.rename(gone)
        _remove(gone)

    def all(self) -> frozenset[str]:
        """The digests of everything stored."""
        with _disk("be listed"):
            if not self.root.is_dir():
                return frozenset()
            names = {f"sha256:{path.name}" for path in self.root.iterdir()}
        return frozenset(name for name in names if _DIGEST.fullmatch(name))

    def sweep(self, *, older_than_s: float = 3600.0, now_s: float | None = None) -> int:
        """Remove what crashed copies and deletions left behind; returns how many folders."""
        now = time.time() if now_s is None else now_s
        removed = 0
        with _disk("be swept"):
            if not self.root.is_dir():
                return 0
            for path in self.root.iterdir():
                if path.name.startswith((".new-", ".gone-")) and now - path.lstat().st_mtime > older_than_s:
                    _remove(path)
                    removed += 1
        return removed

    def stored(self) -> Mapping[str, float]:
        """Each digest that is stored, and when its folder was filled (unix s)."""
        found = {digest: self.since(digest) for digest in self.all()}
        return {digest: at for digest, at in found.items() if at is not None}

    def since(self, digest: str) -> float | None:
        """When the folder was filled (unix s), or None where there is none."""
        with _disk(f"look at {digest}"):
            try:
                return (self.root / _hex(digest)).lstat().st_mtime
            except FileNotFoundError:
                return None

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        """The folder itself carries the lock, so it ends with the process, however that ends."""
        with _disk("be locked"):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _disk("be locked"):
                fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)

    def _mend(self, digest: str, copy: Path) -> None:
        """The digest is taken: the same bytes are here already, unless somebody changed them behind our back. Then
        each file is put right by a rename of its own, so that an engine that reads meanwhile never misses one."""
        final = self.root / _hex(digest)
        if _is_intact(final, digest):
            return
        final.chmod(0o755)
        ours = {path.name for path in copy.iterdir()}
        for path in final.iterdir():
            if stat.S_ISDIR(path.lstat().st_mode):
                shutil.rmtree(path)
            elif path.name not in ours:
                path.unlink()
        for path in copy.iterdir():
            path.replace(final / path.name)
        final.chmod(0o555)


def _is_intact(folder: Path, digest: str) -> bool:
    try:
        return digest_folder(folder) == digest
    except DigestMismatch:
        return False


def _hex(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise NotFound(f"{shown(digest)} is no digest; one is 'sha256:' and 64 hexadecimal digits.")
    return digest.removeprefix("sha256:")


def _copy(folder: Path, copy: Path, bytes_max: int | None) -> None:
    left = bytes_max
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        # A link or a pipe put here since it was looked at is neither followed nor waited for.
        source = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(source, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "no plain file", entry.path)
            written = _copy_file(file, copy / entry.name, left)
        left = None if left is None else left - written


def _copy_file(source: BinaryIO, target: Path, bytes_max: int | None) -> int:
    written = 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if bytes_max is not None and written > bytes_max:
                raise TooLarge(f"The adapter takes more than the {bytes_max} bytes that are left for it.")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)
    return written


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Best effort: what stays is invisible, and `sweep` comes by again."""
    with suppress(OSError):
        folder.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"The artifact store could not {what}: {error.strerror or error}.") from error
