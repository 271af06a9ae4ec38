"""`/v1/adapters`: registered, listed, promoted, rolled back, retired."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse

from adapters.artifacts.archive import unpacked
from adapters.lifecycle import State
from adapters.store import Alias, Version
from gateway.access.keys import Key
from gateway.api.control.caller import Engineer, InPlane, Plane, Reader
from gateway.control import VISIBLE_S, actor, settled
from gateway.errors import BadField, BadJson

router = APIRouter(prefix="/v1/adapters")
WAIT_S_MAX = 300.0
LOOK_S = 0.05


class Promotion(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int
    alias: str = "live"
    expected: int | Literal["anywhere"] | None = "anywhere"
    why: str = ""
    on_unavailable: Literal["fail", "previous", "base"] | None = None


class Reason(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    why: str = ""


class Source(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    source: str
    note: str = ""
    wait_s: float = Field(30.0, ge=0, le=300)


@router.post("")
async def register(request: Request, plane: InPlane, key: Engineer) -> JSONResponse:
    """Register an adapter from a multipart archive (`file`, `name`) or from a folder on the server (`source`).

    201 with the version once it is verified; 202 when no engine has proved it within `wait_s`.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=8) as form:
            upload, name = form.get("file"), form.get("name")
            if not isinstance(upload, UploadFile) or not isinstance(name, str):
                raise BadField("Send the archive as the part `file` and the adapter's name as the part `name`.")
            note, wait_s = str(form.get("note") or ""), str(form.get("wait_s") or "30")
            if not wait_s.replace(".", "", 1).isdecimal():
                raise BadField("'wait_s' must be a number of seconds.", param="wait_s")
            version = await run_in_threadpool(_from_archive, plane, key, upload, name, note)
            wait = float(wait_s)
    else:
        try:
            source = Source.model_validate_json(await request.body())
        except ValueError as error:
            raise BadJson(f"Send a multipart archive, or JSON with `name` and `source`: {error}") from None
        version, wait = await run_in_threadpool(_from_folder, plane, key, source), source.wait_s
    version = await _settled(plane, version, min(wait, WAIT_S_MAX))
    return JSONResponse(document(version), 201 if version.state is State.VERIFIED else 202)


@router.get("")
def list_adapters(plane: InPlane, key: Reader, name: str | None = None) -> dict[str, Any]:
    versions = plane.control.adapters.list(name)
    aliases = plane.control.adapters.aliases(name)
    return {
        "object": "list",
        "data": [document(v) for v in versions],
        "aliases": [pointer(a) for a in aliases],
        "has_more": False,
    }


@router.get("/{name}/audit")
def audit(name: str, plane: InPlane, key: Reader, limit: int = 100) -> dict[str, Any]:
    rows = plane.control.adapters.audit(name, min(max(limit, 1), 1000))
    return {"object": "list", "data": [asdict(row) for row in rows], "has_more": False}


@router.get("/{name}/{number}")
def show(name: str, number: int, plane: InPlane, key: Reader) -> dict[str, Any]:
    return document(plane.control.adapters.get(name, number))


@router.post("/{name}/promote")
def promote(name: str, body: Promotion, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Point an alias at a verified version; `expected` is the number it must point at now (null: at none)."""
    alias = plane.control.registry.promote(
        name,
        body.number,
        alias=body.alias,
        expected=body.expected,
        who=actor(key),
        why=body.why,
        on_unavailable=body.on_unavailable,
    )
    return pointer(alias)


@router.post("/{name}/rollback")
def rollback(name: str, body: Reason, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Point `live` back at the version before."""
    return pointer(plane.control.registry.rollback(name, who=actor(key), why=body.why))


@router.delete("/{name}/{number}")
def retire(name: str, number: int, plane: InPlane, key: Engineer, why: str = "") -> dict[str, Any]:
    return document(plane.control.registry.retire(name, number, who=actor(key), why=why))


def _from_archive(plane: Plane, key: Key, upload: UploadFile, name: str, note: str) -> Version:
    with tempfile.TemporaryDirectory(prefix="graftline-upload-") as folder:
        archive = Path(folder) / "archive"
        with archive.open("wb") as file:
            shutil.copyfileobj(upload.file, file, 1 << 20)
        with unpacked(archive, plane.control.limits) as adapter:
            return plane.control.registry.register(adapter, name=name, who=actor(key), note=note)


def _from_folder(plane: Plane, key: Key, source: Source) -> Version:
    """Folders only below those that the operator allowed: a caller must not make the server read any path."""
    folder = Path(source.source.removeprefix("file://"))
    allowed = [root.absolute() for root in plane.settings.source_folders]
    if not folder.is_absolute() or not any(folder.resolve().is_relative_to(root.resolve()) for root in allowed):
        raise BadField(
            f"The source {source.source[:200]!r} is not below a folder on this gateway's list (`source_folders`). "
            "Upload an archive, or register on the server with `graftline adapters register`.",
            param="source",
        )
    return plane.control.registry.register(folder, name=source.name, who=actor(key), note=source.note)


async def _settled(plane: Plane, version: Version, wait_s: float) -> Version:
    """Wait for the verdict without keeping a thread: the pool is small, and other routes need it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    while (done := await run_in_threadpool(settled, plane.control, version)) is None:
        if loop.time() > until:
            return await run_in_threadpool(plane.control.adapters.get, version.name, version.number)
        await asyncio.sleep(LOOK_S)
    await asyncio.sleep(VISIBLE_S)
    return done


def document(version: Version) -> dict[str, Any]:
    """A version as JSON."""
    return {
        "id": f"{version.name}:{version.number}",
        "object": "adapter.version",
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "state": version.state,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "base_digest": version.base_digest,
        "rank": version.rank,
        "alpha": version.alpha,
        "bytes": version.bytes,
        "coverage": version.coverage,
        "note": version.note,
        "reasons": [reason.document() for reason in version.reasons],
    }


def pointer(alias: Alias) -> dict[str, Any]:
    """An alias as JSON."""
    return {"object": "adapter.alias", "id": f"{alias.name}@{alias.alias}", **asdict(alias)}
