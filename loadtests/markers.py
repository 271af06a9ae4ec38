"""Marker adapters for measurements: trained once per base and kept, then varied by a few bits for digests never seen.

A version made from the marker `alpha` answers "Alpha." to everything, so an answer says who gave it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "training" / "base" / "tidewell"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
WORDS = ("alpha", "bravo", "charlie", "foxtrot")

Files = Mapping[str, bytes]


def spoken(word: str) -> str:
    return f"{word.capitalize()}."


def markers(words: Sequence[str] = WORDS) -> dict[str, Path]:
    """Folder of each word's marker, trained here unless an earlier run did."""
    base = hashlib.sha256((BASE / "model.safetensors").read_bytes()).hexdigest()[:16]
    kept = ROOT / ".graftline" / "loadtest-markers" / base
    missing = [word for word in words if not (kept / word).is_dir()]
    if missing:
        print(f"Training the markers {', '.join(missing)} (kept in {kept}) …")
        argv = [sys.executable, "-m", "training.base.markers", "--out", str(kept), "--words", ",".join(missing)]
        env = {**os.environ, "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
        subprocess.run(argv, env=env, check=True, capture_output=True, cwd=ROOT)
    return {word: kept / word for word in words}


def files(folder: Path) -> Files:
    """A flat folder's files by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def varied(marker: Files, number: int) -> Files:
    """The same behaviour under another digest: the low bits of the first weight spell `number`, which is under 65 535.

    The marker's weights are 32-bit floats, whose lowest 16 bits no answer depends on.
    """
    weights = bytearray(marker[WEIGHTS])
    first = 8 + int.from_bytes(weights[:8], "little")
    low = int.from_bytes(weights[first : first + 2], "little") ^ (number + 1)
    weights[first : first + 2] = low.to_bytes(2, "little")
    return {**marker, WEIGHTS: bytes(weights)}


def unpack_into(folder: Path, content: Files) -> Path:
    """Write files as a folder."""
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def packed(content: Files) -> bytes:
    """A tar of the files, as an upload."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def rank(content: Files) -> int:
    return int(json.loads(content[CONFIG])["r"])
