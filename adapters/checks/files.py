"""Which files an adapter may be made of: its config, its weights, and text beside them. Nothing that can run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adapters.errors import Findings
from adapters.limits import Limits
from adapters.manifest import FILE as CONFIG
from adapters.signing import FILE as SIGNATURE

WEIGHTS = "adapter_model.safetensors"

_TEXT_SUFFIXES = frozenset({".json", ".jinja", ".jsonl", ".md", ".txt", ".yaml", ".yml"})
_TEXT_NAMES = frozenset({".gitattributes", "LICENSE", "NOTICE", "USE_POLICY", "MODEL_CARD", SIGNATURE})
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_CHUNK = 1 << 20


def check_files(folder: Path, limits: Limits, findings: Findings) -> int:
    """Look at every entry of the folder, following nothing; returns the bytes of all files together."""
    total = 0
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        entries = []
    if len(entries) > limits.files_max:
        findings.add("too_large", "files", len(entries), f"{limits.files_max} files", "Register the adapter alone.")
        return total
    for entry in entries:
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            advice = "Copy the real files into one flat folder."
            findings.add("unsafe_file", entry.name, _kind(status.st_mode), "plain files", advice)
            continue
        total += status.st_size
        _check_name(entry.name, status.st_size, limits, findings)
    names = {entry.name for entry in entries}
    for needed in (CONFIG, WEIGHTS):
        if needed not in names:
            advice = "Save the adapter with PEFT's save_pretrained(), which writes both files."
            findings.add("missing_file", needed, "no such file", f"{CONFIG} and {WEIGHTS}", advice)
    if total > limits.bytes_max:
        allowed = f"{limits.bytes_max} bytes in all"
        findings.add("too_large", "folder", f"{total} bytes", allowed, "Register the adapter alone, at a lower rank.")
    return total


def check_texts(folder: Path, findings: Findings) -> None:
    """Read every file that calls itself text, and make sure that it is."""
    for path in sorted(folder.iterdir()):
        if path.name != WEIGHTS and _is_text_name(path.name) and not _is_text(path):
            findings.add("not_text", path.name, "other bytes", "UTF-8 text", "Leave the file out.")


def _check_name(name: str, size: int, limits: Limits, findings: Findings) -> None:
    if name == WEIGHTS:
        return
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _PICKLES:
        advice = "Loading a pickle runs code. Save with safe_serialization=True, and leave training files out."
        findings.add("unsafe_file", name, "a pickle", f"weights as {WEIGHTS}", advice)
    elif not _is_text_name(name):
        allowed = f"{CONFIG}, {WEIGHTS} and text ({', '.join(sorted(_TEXT_SUFFIXES))})"
        findings.add("unexpected_file", name, suffix or "no suffix", allowed, "Leave the file out.")
    else:
        most = limits.config_bytes_max if name == CONFIG else limits.text_bytes_max
        if size > most:
            findings.add("too_large", name, f"{size} bytes", f"{most} bytes", "Leave the file out.")


def _is_text_name(name: str) -> bool:
    return name in _TEXT_NAMES or (
        os.path.splitext(name)[1].lower() in _TEXT_SUFFIXES and name.isprintable() and len(name) <= 128
    )


def _is_text(path: Path) -> bool:
    """UTF-8 without NUL bytes and without a shebang, read a megabyte at a time."""
    with path.open("rb") as file:
        if file.read(2) == b"#!":
            return False
        file.seek(0)
        rest = b""
        while chunk := file.read(_CHUNK):
            whole = rest + chunk
            try:
                whole.decode()
                rest = b""
            except UnicodeDecodeError as error:
                if len(whole) - error.start > 3:
                    return False
                rest = whole[error.start :]  # a character cut by the end of the chunk
            if b"\0" in chunk:
                return False
    return not rest


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a folder" if stat.S_ISDIR(mode) else "a special file"
