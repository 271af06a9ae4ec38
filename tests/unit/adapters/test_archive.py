"""Archives from strangers: the honest ones are unpacked, and no other leaves a file or takes the machine."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.artifacts import unpacked
from adapters.errors import AdapterError, BadArchive, TooLarge, Unavailable
from adapters.limits import Limits

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights", "README.md": b"hello"}
SMALL = Limits(bytes_max=100_000, files_max=8)


def tar(files: dict[str, bytes], *, mode: str = "w", change: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change:
                change(info)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, content)
    return buffer.getvalue()


def unpack(tmp_path: Path, content: bytes, limits: Limits = SMALL) -> dict[str, bytes]:
    archive, scratch = tmp_path / "archive", tmp_path / "scratch"
    archive.write_bytes(content)
    scratch.mkdir(exist_ok=True)
    try:
        with unpacked(archive, limits, scratch=scratch) as folder:
            assert folder.parent == scratch
            return {path.name: path.read_bytes() for path in folder.iterdir()}
    finally:
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        tar(FILES),
        tar(FILES, mode="w:gz"),
        zipped(FILES),
        zipped(FILES, method=zipfile.ZIP_STORED),
        tar({f"support/{name}": content for name, content in FILES.items()}, mode="w:gz"),
        tar({f"./{name}": content for name, content in FILES.items()}),
        zipped({f"support/{name}": content for name, content in FILES.items()}),
        zipped({**FILES, "__MACOSX/._README.md": b"x", ".DS_Store": b"x"}),
        tar({**FILES, "._README.md": b"x"}),
        tar(FILES, change=lambda info: setattr(info, "pax_headers", {"comment": "ü" * 200})),
    ],
    ids=["tar", "tar.gz", "zip", "stored", "folder", "dots", "zip folder", "mac zip", "mac tar", "pax"],
)
def test_honest_archives_are_unpacked_flat(content: bytes, tmp_path: Path) -> None:
    assert unpack(tmp_path, content) == FILES


def test_folders_in_an_archive_are_allowed_and_empty_ones_vanish(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("support/", "")
        archive.writestr("support/a.txt", "1")
    assert unpack(tmp_path, buffer.getvalue()) == {"a.txt": b"1"}


def directory(info: tarfile.TarInfo) -> None:
    info.type, info.size = tarfile.DIRTYPE, 0


def typed(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    return change


HOSTILE: dict[str, tuple[type[AdapterError], bytes]] = {
    "nothing": (BadArchive, b""),
    "no archive": (BadArchive, b"MZ" + bytes(600)),
    "an unknown packer": (BadArchive, tar(FILES, mode="w:bz2")),
    "an empty tar": (BadArchive, tar({})),
    "an empty zip": (BadArchive, zipped({})),
    "only folders": (BadArchive, tar({"support": b""}, change=directory)),
    "a path upwards": (BadArchive, tar({"../evil": b"x"})),
    "a zip path upwards": (BadArchive, zipped({"a/../../evil": b"x"})),
    "an absolute path": (BadArchive, tar({"/tmp/evil": b"x"})),
    "a Windows path": (BadArchive, zipped({"C:\\evil": b"x"})),
    "a drive": (BadArchive, tar({"c:evil": b"x"})),
    "a backslash": (BadArchive, tar({"a\\b": b"x"})),
    "a control character": (BadArchive, tar({"a\nb": b"x"})),
    "an endless name": (BadArchive, tar({"a" * 200: b"x"})),
    "an endless wide name": (BadArchive, tar({"ü" * 100: b"x"})),
    "too deep": (BadArchive, tar({"a/b/c": b"x"})),
    "two folders": (BadArchive, tar({"a/x": b"1", "b/y": b"2"})),
    "folder and flat": (BadArchive, tar({"a/x": b"1", "y": b"2"})),
    "twice": (BadArchive, tar({"a": b"1"})[:1024] + tar({"a": b"2"})),
    "twice but for how a letter is spelt": (BadArchive, zipped({"\u00fc.txt": b"1", "u\u0308.txt": b"2"})),
    "twice but for case": (BadArchive, zipped({"a": b"1", "A": b"2"})),
    "a symbolic link": (BadArchive, tar({"a": b""}, change=typed(tarfile.SYMTYPE))),
    "a hard link": (BadArchive, tar({"a": b""}, change=typed(tarfile.LNKTYPE))),
    "a device": (BadArchive, tar({"a": b""}, change=typed(tarfile.CHRTYPE))),
    "a pipe": (BadArchive, tar({"a": b""}, change=typed(tarfile.FIFOTYPE))),
    "a link in a zip": (BadArchive, zipped({"a": b"/etc/passwd"}, mode=0o120777)),
    "an unusual method": (BadArchive, zipped({"a": b"x"}, method=zipfile.ZIP_LZMA)),
    "a truncated tar": (BadArchive, tar({"a": b"x" * 5000})[:3000]),
    "a truncated gzip": (BadArchive, tar({"a": bytes(range(256)) * 99}, mode="w:gz")[:-40]),
    "a broken gzip": (BadArchive, b"\x1f\x8b\x08" + b"\xff" * 600),
    "a broken zip": (BadArchive, zipped(FILES)[:60]),
    "a zip whose bytes were changed": (BadArchive, zipped({"a": b"x" * 99}, method=0).replace(b"x" * 99, b"y" * 99)),
    "too many files": (TooLarge, zipped({str(number): b"" for number in range(9)})),
    "too many entries": (TooLarge, zipped({f"{number}/": b"" for number in range(99)})),
    "too many bytes": (TooLarge, tar({"a": bytes(60_000), "b": bytes(60_000)})),
    "many bytes that nobody would read": (TooLarge, tar({"._a": bytes(10_000_000), "a": b""}, mode="w:gz")),
    "a bomb": (TooLarge, zipped({"a": bytes(10_000_000)})),
    "a bomb in gzip": (TooLarge, tar({"a": bytes(10_000_000)}, mode="w:gz")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(kind: str, tmp_path: Path) -> None:
    error, content = HOSTILE[kind]
    with pytest.raises(error):
        unpack(tmp_path, content)


def test_a_header_that_claims_all_memory_is_not_read(tmp_path: Path) -> None:
    """An extended header of 8 GiB: tarfile alone would try to hold it."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    with pytest.raises(BadArchive, match="header of"):
        unpack(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))


def test_a_long_gap_in_a_gzip_is_not_inflated_beyond_the_bound(tmp_path: Path) -> None:
    """A folder entry may claim bytes too; skipping them must not cost more than an adapter may have."""
    info = tarfile.TarInfo("folder/")
    info.type, info.size = tarfile.REGTYPE, 1 << 40
    with pytest.raises((TooLarge, BadArchive)):
        unpack(tmp_path, gzip.compress(info.tobuf() + bytes(1_000_000)))


@pytest.mark.slow
def test_a_list_of_holes_without_an_end_is_not_read(tmp_path: Path) -> None:
    """A sparse file lists its holes before its content: tarfile alone would collect numbers until the memory ends."""
    info = tarfile.TarInfo("adapter_model.safetensors")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    holes = b"999999999\n" + b"1\n" * 1_500_000
    info.size = len(holes)
    content = gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + holes + bytes(1024))
    with pytest.raises(BadArchive, match="describes a file in more bytes"):
        unpack(tmp_path, content, Limits())


def test_headers_of_headers_without_an_end_are_not_followed(tmp_path: Path) -> None:
    """Each long name may be that of the next long name: tarfile alone would recurse until Python gives up."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    link = info.tobuf(tarfile.GNU_FORMAT) + b"a" + bytes(511)
    with pytest.raises(BadArchive):
        unpack(tmp_path, gzip.compress(link * 5_000 + bytes(1024)), Limits())


@pytest.mark.slow
def test_a_list_of_entries_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    """A zip's directory is read whole: two gigabytes of it are forty million objects."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(12_000):
            archive.writestr(f"{number:0100}/", b"")
    with pytest.raises(BadArchive, match="header of"):
        unpack(tmp_path, buffer.getvalue(), Limits())


@pytest.mark.slow
def test_what_shrinks_a_thousandfold_is_a_bomb_though_it_would_fit(tmp_path: Path) -> None:
    content = zipped({"adapter_model.safetensors": bytes(40 << 20)})
    with pytest.raises(TooLarge, match="200 times"):
        unpack(tmp_path, content, Limits())


def test_a_small_file_may_shrink_as_it_likes(tmp_path: Path) -> None:
    assert unpack(tmp_path, zipped({"a.txt": bytes(90_000)}))["a.txt"] == bytes(90_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "stored"])
def test_no_mutation_of_an_archive_does_worse_than_be_refused(kind: str, tmp_path: Path) -> None:
    """Whatever bytes come, the answer is files under plain names or an error of ours."""
    rng = random.Random(7)
    seeds = {
        "tar": tar({**FILES, "ü" * 60: b"long"}),
        "tar.gz": tar(FILES, mode="w:gz"),
        "zip": zipped(FILES),
        "stored": zipped(FILES, method=zipfile.ZIP_STORED),
    }
    seed = seeds[kind]
    refused = 0
    for _ in range(400):
        content = bytearray(seed)
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(len(content))] = rng.choice((0, 0x20, 0x2F, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        try:
            for name in unpack(tmp_path, bytes(content)):
                assert "/" not in name
        except (BadArchive, TooLarge):
            refused += 1
    assert refused > 20


def test_an_archive_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"), unpacked(tmp_path / "nowhere", SMALL):
        pass
