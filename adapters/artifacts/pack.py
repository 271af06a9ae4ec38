"""Packs flat files as a tar that is never held in memory or on disk: its length is known before its first byte."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapters.errors import BadSource, shown

_CHUNK = 1 << 20
_END = bytes(1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file to pack: its name in the archive, and a path or the bytes themselves."""

    name: str
    size: int
    content: Path | bytes


def entries(folder: Path) -> tuple[Entry, ...]:
    """The files of a flat folder, by name."""
    return tuple(
        Entry(name=path.name, size=path.lstat().st_size, content=path)
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
    )


def tar_size(packed: Sequence[Entry]) -> int:
    """How many bytes `tar` gives for these."""
    return sum(len(_head(entry)) + entry.size + _padding(entry.size) for entry in packed) + len(_END)


def tar(packed: Sequence[Entry]) -> Iterator[bytes]:
    """The archive, a megabyte at a time. Raises BadSource for a file that changes meanwhile."""
    with ExitStack() as stack:
        # All are opened first: what is deleted while a slow reader reads, still comes out whole.
        opened = [
            stack.enter_context(_open(entry.content)) if isinstance(entry.content, Path) else None for entry in packed
        ]
        for entry, file in zip(packed, opened, strict=True):
            yield _head(entry)
            if file is None:
                assert isinstance(entry.content, bytes)
                yield entry.content
            else:
                yield from _exactly(file, entry)
            yield bytes(_padding(entry.size))
        yield _END


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as gzip, packed lightly: weights hardly shrink. The same input gives the same output."""
    packer = zlib.compressobj(level=1, wbits=31)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def counted(chunks: Iterable[bytes], note: Callable[[int], None]) -> Iterator[bytes]:
    """The same chunks, each noted by its size as it leaves."""
    for chunk in chunks:
        yield chunk
        note(len(chunk))


def _head(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.size = entry.size
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _exactly(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    left = entry.size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise BadSource(f"{shown(entry.name)} became shorter while it was read. Send it again when nobody writes.")
        left -= len(chunk)
        yield chunk
