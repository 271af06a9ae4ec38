"""Takes a version out: its own files byte for byte, a model card and its lineage beside them, as a plain PEFT folder.

The bytes are verified first: what nobody may load, nobody may take away either. See `lineage` for how such a folder is
recognised when it comes back.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.artifacts.pack import Entry
from adapters.card import card
from adapters.errors import BadExport, Unavailable, shown
from adapters.lineage import CARD, FILE, lineage, names
from adapters.manifest import FILE as CONFIG
from adapters.registry import Registry
from adapters.sources.hub import upload
from adapters.sources.spelling import Hub, Local, parse
from adapters.store import Store
from adapters.values import Audit

_AUDIT_MAX = 10_000


def parcel(registry: Registry, store: Store, name: str, number: int) -> tuple[Entry, ...]:
    """Everything that an export of the version holds. Raises NotFound, Gone, DigestMismatch, BadSignature."""
    folder = registry.verify(name, number)
    version = store.get(name, number)
    evidence = registry.evidence(name, number)
    audit = [row for row in reversed(store.audit(name, _AUDIT_MAX)) if _concerns(row, name, number)]
    try:
        own = sorted(path.name for path in folder.iterdir())
        found, about = [], {}
        for spot, original in names(own).items():
            path = folder / original
            size = path.stat().st_size
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append(Entry(name=spot, size=size, content=path))
            about[spot] = {"name": original, "bytes": size, "sha256": digest}
        config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    except OSError as error:
        raise Unavailable(f"{name}:{number} could not be read: {error.strerror or error}.") from error
    text = json.dumps(lineage(version, about, evidence, audit), indent=2, ensure_ascii=False)
    return (*found, _made(CARD, card(version, evidence, config)), _made(FILE, text + "\n"))


def deliver(entries: Sequence[Entry], to: str, *, endpoint: str) -> str:
    """Put the files into a new folder, or into a repository of the hub, private where it is new; returns where they
    are now. Raises BadExport, BadSource, SourceUnavailable, HubOffline."""
    place = parse(to)
    if isinstance(place, Local):
        write_folder(entries, place.path)
        return str(place.path)
    if not isinstance(place, Hub):
        raise BadExport("An export goes to a new folder, or to hub:ORG/NAME.")
    with tempfile.TemporaryDirectory(prefix="graftline-export-") as name:
        write_files(entries, Path(name))
        commit = upload(Path(name), place, endpoint=endpoint)
    return f"hub:{place.repo}@{commit}"


def write_folder(entries: Sequence[Entry], target: Path) -> None:
    """Make the folder, whole or not at all. Raises BadExport when something is there already."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BadExport(f"{target} is there already and is no empty folder. Name a new one.")
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        try:
            write_files(entries, part)
            if target.exists():
                target.rmdir()
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise BadExport(f"{shown(str(target))} could not be written: {error.strerror or error}.") from error


def write_files(entries: Sequence[Entry], folder: Path) -> None:
    """Write the files into a folder that is there."""
    for entry in entries:
        path = folder / entry.name
        if isinstance(entry.content, bytes):
            path.write_bytes(entry.content)
        else:
            shutil.copyfile(entry.content, path)


def _made(name: str, text: str) -> Entry:
    content = text.encode()
    return Entry(name=name, size=len(content), content=content)


def _concerns(row: Audit, name: str, number: int) -> bool:
    """Rows of the version itself, and of aliases that came to it or left it."""
    return row.subject == f"{name}:{number}" or ("@" in row.subject and str(number) in (row.before, row.after))
