"""Archives that attack whoever unpacks them. Each holds a good adapter besides, so that nothing else gives it away."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from loadtests.corpus.specimen import WEIGHTS, Bench, Broken

Pack = Callable[[Mapping[str, bytes]], bytes]
_BIG = 160 << 20


def archives() -> Iterator[Broken]:
    """Every specimen of this file."""
    for name, path in (("up", "../evil.txt"), ("up-within", "a/../../evil.txt"), ("root", "/tmp/evil.txt"),
                       ("windows", "C:\\evil.txt"), ("backslash", "a\\..\\evil.txt"), ("control", "a\nb.txt"),
                       ("endless", "a" * 250 + ".txt"), ("deep", "a/b/c/d.txt")):  # fmt: skip
        yield _one(f"archive-path-{name}", "archive-path", "tar.gz", _tar_with(path))
        yield _one(f"zip-path-{name}", "archive-path", "zip", _zip_with(path))
    yield _one("archive-link", "archive-link", "tar.gz", _typed(tarfile.SYMTYPE, "/etc/passwd"))
    yield _one("archive-link-then-through", "archive-link", "tar.gz", _link_then_through)
    yield _one("archive-hard-link", "archive-link", "tar.gz", _typed(tarfile.LNKTYPE, "/etc/passwd"))
    yield _one("zip-link", "archive-link", "zip", _zip_link)
    yield _one("archive-device", "archive-device", "tar.gz", _typed(tarfile.CHRTYPE, ""))
    yield _one("archive-pipe", "archive-device", "tar.gz", _typed(tarfile.FIFOTYPE, ""))
    yield _one("archive-sparse", "archive-sparse", "tar.gz", _sparse)
    yield _one("archive-header-chain", "archive-header", "tar.gz", _header_chain)
    yield _one("archive-header-endless", "archive-header", "tar.gz", _header_endless)
    yield _one("archive-bomb", "archive-bomb", "tar.gz", _bomb_tar)
    yield _one("zip-bomb", "archive-bomb", "zip", _bomb_zip)
    yield _one("zip-many", "archive-count", "zip", _many)
    yield _one("zip-directory-endless", "archive-count", "zip", _directory)
    yield _one("archive-twice", "archive-twice", "tar.gz", _twice)
    yield _one("zip-twice-by-case", "archive-twice", "zip", _zip_with("ADAPTER_CONFIG.json"))
    yield _one("archive-cut", "archive-damaged", "tar.gz", lambda files: _tar(files)[:-200])
    yield _one("zip-cut", "archive-damaged", "zip", lambda files: _zip(files)[:-30])
    yield _one("zip-method", "archive-method", "zip", lambda files: _zip(files, method=zipfile.ZIP_LZMA))
    yield _one("zip-locked", "archive-method", "zip", _locked)
    yield _one("archive-nested", "archive-nested", "tar.gz", _nested)
    yield _one("archive-empty", "archive-empty", "tar.gz", lambda files: _tar({}))


def _one(name: str, kind: str, suffix: str, pack: Pack) -> Broken:
    def make(bench: Bench, at: Path) -> None:
        at.write_bytes(pack(bench.files()))

    codes = ("bad_archive", "adapter_too_large", "unexpected_file", "missing_file")
    return Broken(name=name, kind=kind, codes=codes, make=make, form="archive", more={"suffix": suffix})


def _tar(files: Mapping[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, content in (*((tarfile.TarInfo(name), content) for name, content in files.items()), *more):
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _zip(files: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar_with(path: str) -> Pack:
    return lambda files: _tar({**files, path: b"x"})


def _zip_with(path: str) -> Pack:
    return lambda files: _zip({**files, path: b"x"})


def _typed(kind: bytes, target: str) -> Pack:
    info = tarfile.TarInfo("notes.txt")
    info.type, info.linkname = kind, target
    return lambda files: _tar(files, (info, b""))


def _link_then_through(files: Mapping[str, bytes]) -> bytes:
    """A link to a folder outside, and a file that is written through it."""
    link, through = tarfile.TarInfo("out"), tarfile.TarInfo("out/evil.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
    return _tar(files, (link, b""), (through, b"x"))


def _zip_link(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO(_zip(files))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo("notes.txt")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def _sparse(files: Mapping[str, bytes]) -> bytes:
    """A file that is said to be of holes, and lists them for megabytes."""
    info = tarfile.TarInfo("holes.txt")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    holes = b"999999999\n" + b"1\n" * 4_000_000
    info.size = len(holes)
    start = info.tobuf(tarfile.PAX_FORMAT) + holes + bytes(-len(holes) % 512)
    return gzip.compress(start + gzip.decompress(_tar(files)))


def _header_chain(files: Mapping[str, bytes]) -> bytes:
    """Long names of long names: readers that recurse fall over."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    link = info.tobuf(tarfile.GNU_FORMAT) + b"a" + bytes(511)
    return gzip.compress(link * 5_000 + gzip.decompress(_tar(files)))


def _header_endless(files: Mapping[str, bytes]) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + gzip.decompress(_tar(files)))


def _bomb_tar(files: Mapping[str, bytes]) -> bytes:
    return _tar({**files, WEIGHTS: bytes(_BIG)})


def _bomb_zip(files: Mapping[str, bytes]) -> bytes:
    return _zip({**files, WEIGHTS: bytes(_BIG)})


def _many(files: Mapping[str, bytes]) -> bytes:
    return _zip({**files, **{f"{number}.txt": b"" for number in range(2_000)}})


def _directory(files: Mapping[str, bytes]) -> bytes:
    """A list of entries of more than a megabyte."""
    return _zip({**files, **{f"{number:0120}/": b"" for number in range(12_000)}})


def _twice(files: Mapping[str, bytes]) -> bytes:
    """The second config would replace the one that was looked at."""
    return _tar(files, (tarfile.TarInfo("adapter_config.json"), b"{}"))


def _locked(files: Mapping[str, bytes]) -> bytes:
    """The encrypted bit, set in the list and in front of each file."""
    content = bytearray(_zip(files))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        spot = content.find(magic)
        while spot >= 0:
            content[spot + offset] |= 1
            spot = content.find(magic, spot + 4)
    return bytes(content)


def _nested(files: Mapping[str, bytes]) -> bytes:
    return _tar({**files, "more.tar.gz": _tar(files)})
