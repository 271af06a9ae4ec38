"""Unpacks tar, tar.gz and zip from strangers: plain files only, counted and measured while they are written.

The names and sizes in the archive are claims. Nothing is allocated or trusted because of them: every read is bounded,
bytes are counted as they come out, and a file lands only under a name that was checked.
"""

from __future__ import annotations

import errno
import gzip
import io
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from adapters.errors import BadArchive, TooLarge, Unavailable, shown
from adapters.limits import Limits

_CHUNK = 1 << 20
#: Folders and other entries that are no files count too, or a million of them would be free.
_ENTRIES_FACTOR = 4
#: What the library may read to learn of one entry. A tar can chain headers, and list holes of a sparse file, for ever.
_ENTRY_HEADER_BYTES_MAX = 2 << 20
#: Weights hardly shrink. Beyond the free bytes, more than this many for each packed one is a bomb.
_RATIO_MAX = 200
_RATIO_FREE_BYTES = 16 << 20
_IGNORED = (".DS_Store", "__MACOSX")

#: What the libraries raise for damage, by chance or by design; a test throws thousands of mutations at them.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,
    RecursionError,
    OverflowError,
    ValueError,
    KeyError,
    IndexError,
    struct.error,
)


@contextmanager
def unpacked(archive: Path, limits: Limits, *, scratch: Path | None = None) -> Iterator[Path]:
    """A temporary flat folder with the archive's files; removed at the end. One folder around all files is taken off.

    Raises BadArchive or TooLarge, and Unavailable when the disk fails. `scratch` is where the folder is made.
    """
    with tempfile.TemporaryDirectory(prefix="graftline-unpack-", dir=scratch) as name:
        folder = Path(name)
        try:
            _Unpacking(folder, limits).run(archive)
        except _DAMAGE as error:
            what = shown(str(error) or type(error).__name__, quote=False)
            raise BadArchive(f"The archive is damaged: {what}. Pack and send it again.") from error
        except OSError as error:
            if error.errno == errno.EINVAL:  # an offset that lies before the file's beginning
                raise BadArchive("The archive is damaged: it points out of itself. Pack and send it again.") from error
            raise Unavailable(f"The archive could not be unpacked: {error.strerror or error}.") from error
        yield folder


class _Unpacking:
    """The state of one unpacking: what was written so far, and under which names."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._left = limits.bytes_max
        self._packed = 0
        self._entries = 0
        self._tops: set[str] = set()
        self._names: set[str] = set()

    def run(self, archive: Path) -> None:
        with archive.open("rb") as file:
            start = file.read(512)
            self._packed = file.seek(0, io.SEEK_END)
            file.seek(0)
            if start.startswith(b"PK\x03\x04"):
                self._zip(file)
            elif start.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=file, mode="rb") as plain:
                    self._tar(cast(IO[bytes], plain))
            elif start[257:262] == b"ustar":
                self._tar(file)
            else:
                raise BadArchive("The file is no archive that is taken here. Send .tar, .tar.gz or .zip.")
        if not self._names:
            raise BadArchive("The archive holds no file.")

    def _tar(self, plain: IO[bytes]) -> None:
        # What a tar spends beyond its files: a header and padding for each entry, and the end.
        bounded = _Bounded(plain, self._limits.bytes_max + 4096 * (self._limits.files_max * _ENTRIES_FACTOR + 8))
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            while (member := self._next(tar, bounded)) is not None:
                self._count()
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise BadArchive(f"{shown(member.name)} is a link or a special file. Pack plain files only.")
                if (content := tar.extractfile(member)) is not None:
                    with content:
                        self._write(member.name, content)

    def _next(self, tar: tarfile.TarFile, bounded: _Bounded) -> tarfile.TarInfo | None:
        bounded.header_left = _ENTRY_HEADER_BYTES_MAX
        try:
            return tar.next()
        finally:
            bounded.header_left = None

    def _zip(self, file: BinaryIO) -> None:
        # The list of entries is read whole; one that does not fit a megabyte is no adapter's.
        bounded = _Bounded(file, self._packed)
        with zipfile.ZipFile(cast(IO[bytes], bounded)) as bundle:
            bounded.header_left = None
            for info in bundle.infolist():
                self._count()
                if info.is_dir():
                    continue
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    raise BadArchive(f"{shown(info.filename)} is a link or a special file. Pack plain files only.")
                if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise BadArchive(f"{shown(info.filename)} is encrypted or packed by a method not taken here.")
                with bundle.open(info) as content:
                    self._write(info.filename, content)

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._limits.files_max * _ENTRIES_FACTOR:
            raise TooLarge(f"The archive has more than {self._entries - 1} entries. Pack the adapter alone.")

    def _write(self, path: str, content: IO[bytes]) -> None:
        name = self._flat_name(path)
        if name is None:
            return
        with (self._folder / name).open("xb") as target:
            while chunk := content.read(_CHUNK):
                self._left -= len(chunk)
                unpacked_bytes = self._limits.bytes_max - self._left
                if self._left < 0:
                    raise TooLarge(f"The archive unpacks to more than {self._limits.bytes_max} bytes.")
                if unpacked_bytes > max(_RATIO_FREE_BYTES, _RATIO_MAX * self._packed):
                    raise TooLarge(
                        f"The archive unpacks to more than {_RATIO_MAX} times its {self._packed} bytes; no adapter "
                        "shrinks so. Pack it again without compression."
                    )
                target.write(chunk)

    def _flat_name(self, path: str) -> str | None:
        """The file's own name, once its path is known to be harmless; None for what macOS adds by itself."""
        parts = [part for part in path.split("/") if part != "."]
        if (
            not path.isprintable()
            or "\\" in path
            or ":" in path
            or any(part in ("", "..") or len(part.encode()) > 128 for part in parts)
            or not parts
        ):
            raise BadArchive(f"The archive holds the path {shown(path)}. Pack the files by their plain names.")
        if parts[0] in _IGNORED or parts[-1] in _IGNORED or parts[-1].startswith("._"):
            return None
        if len(parts) > 2:
            raise BadArchive(f"{shown(path)} lies too deep. Pack the files flat, or in one folder.")
        self._tops.add(parts[0] if len(parts) == 2 else "")
        if len(self._tops) > 1:
            raise BadArchive("The archive holds files in different folders. Pack one adapter, flat or in one folder.")
        folded = unicodedata.normalize("NFKC", parts[-1]).casefold()
        if folded in self._names:
            raise BadArchive(f"The archive holds {shown(parts[-1])} twice, or so that other systems think so.")
        self._names.add(folded)
        if len(self._names) > self._limits.files_max:
            raise TooLarge(f"The archive has more than {self._limits.files_max} files. Pack the adapter alone.")
        return parts[-1]


class _Bounded(io.RawIOBase):
    """A stream that tarfile and zipfile may read: never more than a megabyte at once, never beyond the bound.

    Both read headers whole, at the size that they claim; without this one could claim all memory.
    """

    def __init__(self, plain: IO[bytes], bytes_max: int) -> None:
        self._plain = plain
        self._bytes_max = bytes_max
        #: What may still be read of headers, while one entry is looked for; None while content is read.
        self.header_left: int | None = _ENTRY_HEADER_BYTES_MAX

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # zipfile, for a comment at the end
            size = max(0, self._bytes_max - self._plain.tell())
        if size > _CHUNK:
            raise BadArchive(f"The archive has a header of {size} bytes; an adapter never needs one.")
        if self._plain.tell() + size > self._bytes_max + _CHUNK:
            raise TooLarge("The archive unpacks to more bytes than an adapter may have.")
        if self.header_left is not None:
            self.header_left -= size
            if self.header_left < 0:
                raise BadArchive("The archive describes a file in more bytes than any description needs.")
        return self._plain.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and offset > self._bytes_max + _CHUNK:
            raise TooLarge("The archive unpacks to more bytes than an adapter may have.")
        return self._plain.seek(offset, whence)

    def tell(self) -> int:
        return self._plain.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
