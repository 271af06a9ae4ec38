"""Adapter folders with files that have no business there, or without those that do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from loadtests.corpus.specimen import CONFIG, WEIGHTS, Bench, Broken

_PICKLE = b"\x80\x04\x8c\x05posix\x8c\x06system\x93."
_PROGRAM = b"#!/bin/sh\nid\n"

_BESIDE: dict[str, tuple[str, str, str, bytes]] = {
    # name: (kind, code, file, content)
    "pickle-beside": ("pickle", "unsafe_file", "training_args.bin", _PICKLE),
    "pickle-optimizer": ("pickle", "unsafe_file", "optimizer.pt", _PICKLE),
    "program": ("program", "unexpected_file", "setup.sh", _PROGRAM),
    "program-python": ("program", "unexpected_file", "modeling_tidewell.py", b"import os\n"),
    "program-as-text": ("text-that-is-none", "not_text", "notes.txt", _PROGRAM),
    "elf-as-text": ("text-that-is-none", "not_text", "LICENSE", b"\x7fELF\x02\x01\x01" + bytes(64)),
    "nul-in-text": ("text-that-is-none", "not_text", "README.md", b"a\0b"),
    "latin-text": ("text-that-is-none", "not_text", "README.md", "für".encode("latin-1")),
    "second-weights": ("more-weights", "unexpected_file", "model.safetensors", b"\x08" + bytes(15)),
    "control-character": ("file-name", "unexpected_file", "a\x1b[2J.txt", b"x"),
}


def folders() -> Iterator[Broken]:
    """Every specimen of this file."""
    for name, (kind, code, file, content) in _BESIDE.items():
        yield Broken(name=name, kind=kind, codes=_codes(code), make=_with(file, content))
    yield Broken(name="many-files", kind="too-many-files", codes=_codes("too_large"), make=_many)
    yield Broken(name="pickle-only", kind="pickle", codes=("missing_file", "unsafe_file"), make=_pickle_only)
    yield Broken(name="without-config", kind="missing-file", codes=("missing_file",), make=_less(CONFIG))
    yield Broken(name="without-weights", kind="missing-file", codes=("missing_file",), make=_less(WEIGHTS))
    yield Broken(name="link", kind="link", codes=_codes("unsafe_file"), make=_link("notes.txt", "/etc/passwd"))
    yield Broken(name="link-dangling", kind="link", codes=_codes("unsafe_file"), make=_link("notes.txt", "nowhere"))
    yield Broken(name="weights-linked", kind="link", codes=_codes("unsafe_file"), make=_weights_linked)
    yield Broken(name="pipe", kind="special-file", codes=_codes("unsafe_file"), make=_pipe)
    yield Broken(name="folder-inside", kind="folder-inside", codes=_codes("unsafe_file"), make=_folder)


def _codes(code: str) -> tuple[str, ...]:
    """As a folder, or packed into an archive: what no archive may hold is refused while it is unpacked."""
    return (code, "bad_archive", "adapter_too_large")


def _with(file: str, content: bytes) -> Callable[[Bench, Path], None]:
    return lambda bench, at: bench.write(at, files={file: content})


def _many(bench: Bench, at: Path) -> None:
    bench.write(at, files={f"part-{number}.txt": b"x" for number in range(300)})


def _pickle_only(bench: Bench, at: Path) -> None:
    bench.write(at, files={"adapter_model.bin": _PICKLE})
    (at / WEIGHTS).unlink()


def _less(file: str) -> Callable[[Bench, Path], None]:
    def make(bench: Bench, at: Path) -> None:
        bench.write(at)
        (at / file).unlink()

    return make


def _link(file: str, target: str) -> Callable[[Bench, Path], None]:
    def make(bench: Bench, at: Path) -> None:
        bench.write(at)
        (at / file).symlink_to(target)

    return make


def _weights_linked(bench: Bench, at: Path) -> None:
    bench.write(at)
    (at / WEIGHTS).unlink()
    (at / WEIGHTS).symlink_to((bench.base / "model.safetensors").resolve())


def _pipe(bench: Bench, at: Path) -> None:
    bench.write(at)
    os.mkfifo(at / "pipe.txt")


def _folder(bench: Bench, at: Path) -> None:
    bench.write(at)
    (at / "checkpoint-100" / "deeper").mkdir(parents=True)
    (at / "checkpoint-100" / "deeper" / "notes.txt").write_text("x")
