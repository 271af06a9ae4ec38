"""An upload becomes a file: its bytes on disk, its lines read, its row last, so that a crash leaves nothing half there.

What cannot be learnt from is kept as a file in state "error", as OpenAI does: its `details` name the bad lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from training.data.errors import BadFile, DataError
from training.data.imports.files import BadLine, Container, container, lines
from training.data.values import Kind
from training.files.errors import BadUpload, NoRoom
from training.files.shelf import Shelf, digest
from training.files.store import Files
from training.files.values import OF_ROWS, PURPOSES, SENT, File, Purpose, new_id

NAME_CHARS_MAX = 255
EXPIRES_S = (3600, 30 * 86_400)
_KEPT_DETAILS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a client says of a file that it sends."""

    filename: str
    purpose: Purpose
    expires_s: int | None = None


def said(filename: str | None, fields: Mapping[str, Any]) -> Upload:
    """The words that come with an upload: `purpose`, `expires_after[anchor]`, `expires_after[seconds]`. BadUpload."""
    purpose = next((each for each in SENT if each == fields.get("purpose")), None)
    if purpose is None:
        found = str(fields.get("purpose", "none"))[:60]
        why = "only this program makes those" if found in PURPOSES else "nothing here reads such files"
        raise BadUpload(f"The purpose is {found!r}; {why}. Allowed: {', '.join(SENT)}.", param="purpose")
    name = Path((filename or "").replace("\\", "/")).name or "upload.jsonl"
    if len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise BadUpload(
            f"The file's name has {len(name)} characters; allowed: {NAME_CHARS_MAX} that can be printed.", param="file"
        )
    if unknown := sorted(fields.keys() - {"purpose", "file", "expires_after[anchor]", "expires_after[seconds]"}):
        raise BadUpload(f"Unknown parts: {', '.join(map(str, unknown))[:200]}.", param=str(unknown[0])[:100])
    return Upload(filename=name, purpose=purpose, expires_s=_expires(fields))


def take(
    files: Files, shelf: Shelf, upload: Upload, source: BinaryIO, *, tenant: str, owner: str, now: float, bytes_max: int
) -> File:
    """Keep an upload; `bytes_max` is for all of the tenant's files together. BadUpload, NoRoom, FilesNotKept."""
    with shelf.received(source) as part:
        size = part.stat().st_size
        if not size:
            raise BadUpload("The file is empty.", param="file")
        held = files.total(tenant)
        if held + size > bytes_max:
            raise NoRoom(tenant, held=held, more=size, most=bytes_max)
        file = File(
            id=new_id(),
            tenant=tenant,
            owner=owner,
            created_at=now,
            filename=upload.filename,
            purpose=upload.purpose,
            bytes=size,
            digest=digest(part),
            container=_container(upload.filename),
            expires_at=now + upload.expires_s if upload.expires_s is not None else None,
        )
        if file.purpose in OF_ROWS:
            file = looked(file, part)
        shelf.put(part, file)
        with ExitStack() as undo:  # bytes without a row would be nobody's
            undo.callback(shelf.drop, file)
            added = files.add(file)
            undo.pop_all()
        return added


def keep(files: Files, shelf: Shelf, file: File, source: BinaryIO) -> File:
    """Keep a file that was made here, such as a job's results; one of this id that is there already stays."""
    with shelf.received(source) as part:
        file = replace(file, bytes=part.stat().st_size, digest=digest(part))
        shelf.put(part, file)
        return files.add(file)


def remove(files: Files, shelf: Shelf, tenant: str, id_: str) -> File:
    """Row first, bytes last. FileNotFound."""
    file = files.remove(tenant, id_)
    shelf.drop(file)
    return file


def tidy(files: Files, shelf: Shelf, *, now: float) -> int:
    """Remove files whose time is over, and bytes that no row names. Returns how many."""
    rows = files.all()
    over = [file for file in rows if file.gone(now)]
    for file in over:
        remove(files, shelf, file.tenant, file.id)
    return len(over) + shelf.sweep({file.stored for file in rows}, now=now)


def looked(file: File, path: Path) -> File:
    """The file with what its lines hold, or with what is wrong with them."""
    try:
        kind, rows = _objects(path, file) if file.purpose == "evals" else _learnt(path, file)
    except DataError as problem:
        told = str(problem).replace(path.name, file.filename, 1)
        return replace(file, state="error", details=told[:_KEPT_DETAILS])
    return replace(file, state="processed", kind=kind, rows=rows)


def _learnt(path: Path, file: File) -> tuple[Kind, int]:
    """What for, and how many rows. Raises BadFile that names all bad lines."""
    from training.data.imports.read import check

    found = check(path, as_=file.container)
    if found.bad:
        raise BadFile(path.name, found.problems, found=found.bad)
    return found.kind, found.rows


def _objects(path: Path, file: File) -> tuple[None, int]:
    """Rows of an evaluation, which may have any fields: each must be an object."""
    rows, problems = 0, []
    for number, fields in lines(path, file.container):
        rows += 1
        if isinstance(fields, BadLine):
            problems.append((number, str(fields)))
    if problems or not rows:
        raise BadFile(path.name, problems or [(0, "it is empty")])
    return None, rows


def _container(filename: str) -> Container:
    """How the rows are written, by the client's name for it; JSONL where that says nothing."""
    try:
        return container(Path(filename))
    except BadFile:
        return "jsonl"


def _expires(fields: Mapping[str, Any]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise BadUpload("expires_after counts from created_at only.", param="expires_after[anchor]")
    least, most = EXPIRES_S
    if not str(seconds).isdecimal() or not least <= int(str(seconds)) <= most:
        raise BadUpload(
            f"A file may expire after {least} to {most} seconds; found {str(seconds)[:40]!r}.",
            param="expires_after[seconds]",
        )
    return int(str(seconds))
