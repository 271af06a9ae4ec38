"""The bytes of files on this machine's disk: whole under their name, or not there."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from training.files.errors import FileNotFound, FilesNotKept
from training.files.values import File

_CHUNK = 1 << 20
#: Bytes that no row names are left alone for so long: their row may be on its way.
YOUNG_S = 3600.0


class Shelf:
    """A folder of files. Safe for any number of processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def received(self, source: BinaryIO) -> Iterator[Path]:
        """A private copy of what comes in, on the disk where it will stay; gone afterwards unless it was `put`."""
        part = self.root / f".new-{uuid.uuid4().hex}"
        try:
            with _disk(), _made(self.root, part) as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            yield part
        finally:
            with suppress(OSError):  # what is left here is swept later
                part.unlink()

    def put(self, part: Path, file: File) -> Path:
        """Give a received copy its name. Raises FilesNotKept."""
        final = self.root / file.stored
        with _disk():
            part.rename(final)
            folder = os.open(self.root, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return final

    def path(self, file: File) -> Path:
        """Where the bytes are. Raises FileNotFound."""
        found = self.root / file.stored
        if not found.is_file():
            raise FileNotFound(file.id)
        return found

    def drop(self, file: File) -> None:
        """Remove the bytes; nothing happens if they are not there."""
        with _disk():
            (self.root / file.stored).unlink(missing_ok=True)

    def sweep(self, named: Collection[str], *, now: float | None = None) -> int:
        """Remove what no row names and is not young: a crash left it behind. Returns how many."""
        edge = (time.time() if now is None else now) - YOUNG_S
        gone = 0
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if path.name not in named and path.is_file() and path.stat().st_mtime < edge:
                path.unlink(missing_ok=True)
                gone += 1
        return gone


def digest(path: Path) -> str:
    """`sha256:…` of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextmanager
def _made(root: Path, path: Path) -> Iterator[BinaryIO]:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FilesNotKept(
            f"The file could not be kept: {error.strerror or error}. Nothing of it was; send it again later."
        ) from error
