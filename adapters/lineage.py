"""What an exported folder says of where it comes from, in `lineage.json`; and how such a folder is recognised.

An export adds a card and this file beside the version's own files, which come out byte for byte. The digest is one over
the version's own files alone. So a folder that holds them all, unchanged, is registered as what it was, with the digest
that it had; if anything differs it is a new adapter like any other.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.artifacts.linked import linked
from adapters.errors import Unavailable
from adapters.values import Audit, Evidence, Version

FILE = "lineage.json"
CARD = "README.md"
FORMAT = "graftline-lineage/1"
_BYTES_MAX = 32 << 20
#: What may lie in an exported folder without being the version's: ours, and what the hub adds by itself.
_BESIDE = frozenset({FILE, CARD, ".gitattributes"})


def names(own: Sequence[str]) -> dict[str, str]:
    """Exported name → the version's own name of each file. Those that the card and the lineage need step aside."""
    found: dict[str, str] = {}
    for name in own:
        spot = name
        if name in _BESIDE - {".gitattributes"}:
            stem, _, suffix = name.rpartition(".")
            spot = f"{stem}.original.{suffix}"
            while spot in own or spot in found:
                stem = f"{stem}.original"
                spot = f"{stem}.original.{suffix}"
        found[spot] = name
    return found


def lineage(
    version: Version,
    files: Mapping[str, Mapping[str, Any]],
    evidence: Sequence[Evidence],
    audit: Sequence[Audit],
) -> dict[str, Any]:
    """The document. `files`: exported name → own name, size and digest."""
    return {
        "format": FORMAT,
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "digest_covers": "the files listed here, under their own names; not this file and not the card",
        "state": str(version.state),
        "base": {"name": version.base_name, "digest": version.base_digest},
        "source": version.source,
        "origin": version.origin,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "note": version.note,
        "rank": version.rank,
        "alpha": version.alpha,
        "coverage": version.coverage,
        "labels": list(version.labels),
        "carried": version.carried.document(),
        "template_digest": version.template_digest,
        "files": {name: dict(about) for name, about in files.items()},
        "evidence": [asdict(seen) for seen in evidence],
        "audit": [asdict(row) for row in audit],
    }


@contextmanager
def restored(folder: Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """The version's own files, where `folder` is an export with all of them unchanged; else the folder as it is."""
    try:
        own = _own(folder)
    except OSError as error:
        raise Unavailable(f"{folder} could not be read: {error.strerror or error}.") from error
    if own is None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="graftline-restored-", dir=scratch) as made:
        linked({name: folder / spot for spot, name in own.items()}, Path(made))
        yield Path(made)


def _own(folder: Path) -> dict[str, str] | None:
    """Exported name → own name, when the folder is a whole and unchanged export."""
    path = folder / FILE
    if not path.is_file() or path.is_symlink() or path.stat().st_size > _BYTES_MAX:
        return None
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("format") != FORMAT or not isinstance(said.get("files"), dict):
        return None
    own = {spot: str(about.get("name")) for spot, about in said["files"].items() if isinstance(about, dict)}
    there = {entry.name for entry in folder.iterdir()}
    if not all(map(_is_flat, own.values())) or len(set(own.values())) != len(own):
        return None
    if not own or own.keys() - there or there - own.keys() - _BESIDE:
        return None
    lines = []
    for name, spot in sorted((name, spot) for spot, name in own.items()):
        if not (folder / spot).is_file() or (folder / spot).is_symlink():
            return None
        with (folder / spot).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()} {name}\n")
    if "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest() != said.get("digest"):
        return None
    return own


def _is_flat(name: str) -> bool:
    return 0 < len(name) <= 128 and name not in (".", "..") and "/" not in name and "\0" not in name
