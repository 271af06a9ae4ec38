"""`/v1/adapters`: registered, listed, compared, taken out; what moves is in `adapters_moves`."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse, StreamingResponse

from adapters.artifacts.pack import gzipped, tar
from adapters.diff import difference
from adapters.export import parcel
from adapters.intake import Checked
from adapters.lifecycle import State
from adapters.store import Version
from gateway.access.keys import Key
from gateway.api.control import adapters_moves
from gateway.api.control.adapters_documents import document, looked, pointer, shown
from gateway.api.control.caller import ARRIVALS_MAX, Engineer, InPlane, Plane, Reader
from gateway.arrival import Wish, arrive, arrive_packed, carried_from, look, look_packed, rules
from gateway.control import VISIBLE_S, actor, settled
from gateway.errors import BadField, BadJson, NoCapacity

router = APIRouter(prefix="/v1/adapters")
WAIT_S_MAX = 300.0
LOOK_S = 0.05
LOOKS = 20
_FORM_FIELDS_MAX = 16


class Registration(BaseModel):
    """What a caller says of an adapter; `source` where it is not sent along."""

    model_config = ConfigDict(extra="forbid")

    name: str
    source: str = Field("", description="A folder, s3://…, https://… or hub:ORG/NAME@REVISION.")
    note: str = Field("", max_length=2000)
    wait_s: float = Field(30.0, ge=0, le=WAIT_S_MAX)
    check: bool = Field(False, description="Only say what registration would make of it; nothing is stored.")
    carried: dict[str, Any] | None = Field(None, description="system, sampling and stop, in place of graftline.json.")
    force_noop: bool = Field(False, description="Take an adapter that changes nothing.")
    unprobed: bool = Field(False, description="Take an adapter that nothing here can probe off the shared engine.")


@router.post("")
async def register(request: Request, plane: InPlane, key: Engineer) -> JSONResponse:
    """Register an adapter from a multipart archive (`file`, `name`) or from a `source`.

    201 with the version once it is verified; 202 when no engine has proved it within `wait_s`; 200 with a report for
    `check`.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=_FORM_FIELDS_MAX) as form:
            upload, asked = _form(form)
            async with plane.unpacking:
                found = await run_in_threadpool(_from_archive, plane, key, upload, asked)
    else:
        asked = _json(await request.body())
        if plane.fetching.locked():
            raise NoCapacity(
                f"{ARRIVALS_MAX} sources are being fetched already. Try again in a moment, or upload an archive.",
                retry_after_s=5,
            )
        async with plane.fetching:
            found = await run_in_threadpool(_from_source, plane, key, asked)
    if isinstance(found, Checked):
        return JSONResponse(looked(asked.name, found))
    version = await _settled(plane, found, asked.wait_s)
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


@router.get("/{name}/diff")
def diff(
    name: str, plane: InPlane, key: Reader, before: int = Query(alias="from"), after: int = Query(alias="to")
) -> dict[str, Any]:
    """What changed from one version to another: config, what is carried, and every module's update."""
    registry = plane.control.registry
    found = difference(registry.verify(name, before), registry.verify(name, after))
    return {"object": "adapter.diff", "from": f"{name}:{before}", "to": f"{name}:{after}", **found.document()}


@router.get("/{name}/{number}/download")
def download(name: str, number: int, plane: InPlane, key: Engineer) -> StreamingResponse:
    """The version as a plain PEFT folder with card and lineage, in a tar.gz."""
    packed = parcel(plane.control.registry, plane.control.adapters, name, number)
    named = f'attachment; filename="{name}-{number}.tar.gz"'
    return StreamingResponse(
        gzipped(tar(packed)), media_type="application/gzip", headers={"content-disposition": named}
    )


@router.get("/{name}/{number}")
def show(name: str, number: int, plane: InPlane, key: Reader) -> dict[str, Any]:
    """The version, with what was seen of it."""
    version = plane.control.adapters.get(name, number)
    evidence = plane.control.registry.evidence(name, number)
    return {**document(version), "evidence": [shown(seen) for seen in evidence]}


router.include_router(adapters_moves.router)


def _json(raw: bytes) -> Registration:
    try:
        asked = Registration.model_validate_json(raw, strict=True)
    except ValueError as error:
        raise BadJson(f"Send a multipart archive, or JSON with `name` and `source`: {error}") from None
    if not asked.source:
        raise BadField("Say with `source` where the adapter is, or send it as a multipart archive.", param="source")
    return asked


def _form(form: FormData) -> tuple[UploadFile, Registration]:
    upload, name = form.get("file"), form.get("name")
    if not isinstance(upload, UploadFile) or not isinstance(name, str):
        raise BadField("Send the archive as the part `file` and the adapter's name as the part `name`.")
    fields: dict[str, Any] = {key: value for key, value in form.items() if key != "file" and value != ""}
    if "source" in fields:
        raise BadField("Send an archive or name a `source`, not both.", param="source")
    try:
        if "carried" in fields:
            fields["carried"] = json.loads(fields["carried"])
        return upload, Registration.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"]))
        raise BadField(f"The part {param!r} cannot be used: {first['msg']}.", param=param) from None
    except (ValueError, TypeError, RecursionError):
        raise BadField("The part 'carried' must be a JSON object.", param="carried") from None


def _wish(key: Key, asked: Registration) -> Wish:
    return Wish(
        name=asked.name,
        who=actor(key),
        note=asked.note,
        carried=carried_from(asked.carried),
        force_noop=asked.force_noop,
        unprobed=asked.unprobed,
    )


def _from_archive(plane: Plane, key: Key, upload: UploadFile, asked: Registration) -> Version | Checked:
    wish = _wish(key, asked)
    with tempfile.TemporaryDirectory(prefix="graftline-upload-") as folder:
        archive = Path(folder) / "archive"
        with archive.open("wb") as file:
            shutil.copyfileobj(upload.file, file, 1 << 20)
        return (look_packed if asked.check else arrive_packed)(plane.control, archive, wish)


def _from_source(plane: Plane, key: Key, asked: Registration) -> Version | Checked:
    """Only sources that the operator allowed: a caller must not make the server read any path or reach any host."""
    allowed = rules(plane.settings, plane.control.limits, anywhere=False)
    return (look if asked.check else arrive)(plane.control, asked.source, allowed, _wish(key, asked))


async def _settled(plane: Plane, version: Version, wait_s: float) -> Version:
    """Wait for the verdict without keeping a thread: the pool is small, and other routes need it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (done := await run_in_threadpool(settled, plane.control, version)) is None:
        if (waited := loop.time() - began) > wait_s:
            return await run_in_threadpool(plane.control.adapters.get, version.name, version.number)
        await asyncio.sleep(max(LOOK_S, waited / LOOKS))  # a thousand that wait for long must not look all the time
    await asyncio.sleep(VISIBLE_S)
    return done
