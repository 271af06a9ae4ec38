"""`/v1/files`: what is learnt from and evaluated by, and jobs' results, as OpenAI's SDK sends and reads them."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.responses import FileResponse

from gateway.access.keys import Key, Role
from gateway.api.control.caller import ARRIVALS_MAX, Engineer, InPlane, Plane, having
from gateway.api.control.files_documents import file, listed
from gateway.control import actor
from gateway.errors import BadField, NoCapacity, TooLarge
from training.files.errors import BadUpload, FileNotFound
from training.files.intake import remove, said, take
from training.files.values import PURPOSES, File

router = APIRouter(prefix="/v1/files")

LIST_MAX = 10_000
_FORM_FIELDS_MAX = 16

Reader = Annotated[Key, Depends(having(Role.ENGINEER, Role.AUDITOR))]


@router.post("")
async def upload(request: Request, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Keep a file. When this returns every line was read: the file is "processed", or "error" and says why."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadField("Send the file as multipart/form-data, with the parts `file` and `purpose`.", param="file")
    if plane.unpacking.locked():
        raise NoCapacity(f"{ARRIVALS_MAX} uploads are being read already. Try again in a moment.", retry_after_s=5)
    async with plane.unpacking, request.form(max_files=1, max_fields=_FORM_FIELDS_MAX) as form:
        return await run_in_threadpool(_take, plane, key, form)


@router.get("")
def list_files(
    plane: InPlane,
    key: Reader,
    purpose: Annotated[str, Query(max_length=64)] = "",
    after: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = LIST_MAX,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """The tenant's files."""
    wanted = next((each for each in PURPOSES if each == purpose), None)
    if purpose and wanted is None:
        return listed([], more=False)
    try:
        found = plane.files.list(key.tenant, purpose=wanted, after=after, limit=limit + 1, newest_first=order == "desc")
    except FileNotFound:
        raise BadField("'after' names no file.", param="after") from None
    now = time.time()
    return listed([each for each in found[:limit] if not each.gone(now)], more=len(found) > limit)


@router.get("/{id_}")
def retrieve(id_: str, plane: InPlane, key: Reader) -> dict[str, Any]:
    """One file."""
    return file(_file(plane, key, id_))


@router.get("/{id_}/content")
def content(id_: str, plane: InPlane, key: Reader) -> FileResponse:
    """A file's bytes, as they were sent."""
    found = _file(plane, key, id_)
    return FileResponse(plane.shelves.shelf.path(found), media_type="application/octet-stream", filename=found.filename)


@router.delete("/{id_}")
def delete(id_: str, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Delete a file. Jobs that have begun keep what they made of it; others that name it fail."""
    remove(plane.files, plane.shelves.shelf, key.tenant, id_[:128])
    return {"id": id_, "object": "file", "deleted": True}


def _file(plane: Plane, key: Key, id_: str) -> File:
    found = plane.files.get(key.tenant, id_[:128])
    if found.gone(time.time()):
        raise FileNotFound(id_)
    return found


def _take(plane: Plane, key: Key, form: FormData) -> dict[str, Any]:
    sent = form.get("file")
    if not isinstance(sent, UploadFile):
        raise BadUpload("Send the file as the part `file`.", param="file")
    if sent.size is not None and sent.size > plane.settings.file_bytes_max:
        raise TooLarge(f"The file has {sent.size} bytes; {plane.settings.file_bytes_max} are allowed.", param="file")
    upload = said(sent.filename, {name: value for name, value in form.multi_items() if name != "file"})
    found = take(
        plane.files,
        plane.shelves.shelf,
        upload,
        sent.file,
        tenant=key.tenant,
        owner=actor(key),
        now=time.time(),
        bytes_max=plane.settings.tenant_files_bytes_max,
    )
    return file(found)
