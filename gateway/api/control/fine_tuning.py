"""`/v1/fine_tuning/jobs`: trainings, as OpenAI's SDK creates, follows, pauses and cancels them."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from adapters.errors import AdapterError
from gateway.access.keys import Key, Role
from gateway.api.control import fine_tuning_documents as documents
from gateway.api.control.caller import Engineer, InPlane, Plane, having
from gateway.control import VISIBLE_S
from gateway.enlisting import SEED_MAX, SUFFIX_CHARS_MAX, Desk, Sent, enlist
from gateway.errors import BadField, BadJson
from gateway.pipeline import current
from gateway.routing.resolve import resolve
from gateway.routing.tuned import of_version, spelled
from gateway.words import spelled as printable
from training.files.recipes import Server
from training.jobs import asking
from training.jobs.errors import JobNotFound
from training.jobs.values import Job, JobState
from training.launchers.section import Tag

router = APIRouter(prefix="/v1/fine_tuning/jobs")

PAIRS_MAX, KEY_CHARS_MAX, VALUE_CHARS_MAX = 16, 64, 512
VERDICT = "verdict.json"
_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_LOOKED_AT = 500

Reader = Annotated[Key, Depends(having(Role.ENGINEER, Role.AUDITOR))]
After = Annotated[str, Query(max_length=128)]
Limit = Annotated[int, Query(ge=1, le=1000)]
_Short = Annotated[str, Field(min_length=1, max_length=512)]


class Method(BaseModel):
    """`type`, and under its name what belongs to it; `training.files.recipes` knows the types."""

    model_config = ConfigDict(extra="allow")

    type: _Short


class Wandb(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    project: _Short
    entity: _Short | None = None
    name: _Short | None = None
    tags: list[Tag] | None = None


class Integration(BaseModel):
    """Where the numbers of each step go besides; it must be installed where trainings run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["wandb"]
    wandb: Wandb


class Creation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: _Short
    training_file: _Short
    validation_file: _Short | None = None
    suffix: Annotated[str, Field(max_length=SUFFIX_CHARS_MAX)] | None = None
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] | None = None
    metadata: dict[str, str] | None = None
    integrations: Annotated[list[Integration], Field(max_length=1)] | None = None
    method: Method | None = None
    hyperparameters: dict[str, Any] | None = None


@router.post("")
async def create(
    request: Request,
    plane: InPlane,
    key: Engineer,
    x_stainless_retry_count: Annotated[str, Header()] = "0",
    idempotency_key: Annotated[str, Header(max_length=255)] = "",
) -> dict[str, Any]:
    """Create a job, or find the one that this very request has made."""
    body = _body(await request.body())
    retries = int(x_stainless_retry_count) if x_stainless_retry_count.isdecimal() else 0
    sent = Sent(key=key, retry_count=retries, idempotency_key=idempotency_key)
    return await run_in_threadpool(_create, plane, sent, body)


@router.get("")
def list_jobs(request: Request, plane: InPlane, key: Reader, after: After = "", limit: Limit = 20) -> dict[str, Any]:
    """The tenant's jobs, the newest first; `metadata[key]=value` leaves those that hold the pair."""
    query = request.query_params
    labels = {pair[1]: value for name, value in query.multi_items() if (pair := _FILTER.fullmatch(name))}
    none = query.get("metadata") == "null"
    if after:
        _job(plane, key, after)
    rows: list[dict[str, Any]] = []
    while len(rows) <= limit:
        found = plane.jobs.list(key.tenant, after=after, limit=limit + 1 if not (labels or none) else _LOOKED_AT)
        if not found:
            break
        after = found[-1].id
        kept = (each for each in found if labels.items() <= each.metadata.items() and not (none and each.metadata))
        rows += [_document(plane, each) for each in kept]
    return documents.page(rows, limit)


@router.get("/{id_}")
def retrieve(id_: str, plane: InPlane, key: Reader) -> dict[str, Any]:
    """One job."""
    return _document(plane, _job(plane, key, id_))


@router.post("/{id_}/cancel")
def cancel(id_: str, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """End a job; what it has trained so far stays in its folder, and is not served."""
    job = _job(plane, key, id_)
    done = job if job.state is JobState.CANCELLED else asking.cancel(plane.jobs, job.id, now=time.time())
    return _document(plane, done)


@router.post("/{id_}/pause")
def pause(id_: str, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Stop a job at its last checkpoint, to go on later."""
    return _document(plane, asking.pause(plane.jobs, _job(plane, key, id_).id, now=time.time()))


@router.post("/{id_}/resume")
def resume(id_: str, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Go on with a paused job."""
    return _document(plane, asking.resume(plane.jobs, _job(plane, key, id_).id, now=time.time()))


@router.get("/{id_}/events")
def list_events(id_: str, plane: InPlane, key: Reader, after: After = "", limit: Limit = 20) -> dict[str, Any]:
    """What happened to a job, the newest first."""
    _job(plane, key, id_)
    found = plane.jobs.events(id_, after=after, limit=limit + 1)
    return documents.page([documents.event(each) for each in found], limit)


@router.get("/{id_}/checkpoints")
def list_checkpoints(id_: str, plane: InPlane, key: Reader, after: After = "", limit: Limit = 10) -> dict[str, Any]:
    """Where a job could go on from, the newest first."""
    job = _job(plane, key, id_)
    tuned = spelled(plane.control.base.name, job.tenant, job.name, job.id)
    found = plane.jobs.checkpoints(id_, after=after, limit=limit + 1)
    return documents.page([documents.checkpoint(each, tuned) for each in found], limit)


def _create(plane: Plane, sent: Sent, body: Creation) -> dict[str, Any]:
    start = resolve(current(plane.gateway), sent.key, body.model)
    asked = body.model_dump(exclude_none=True)
    job = enlist(_desk(plane), sent, asked, start, now=time.time())
    return _document(plane, job)


def _desk(plane: Plane) -> Desk:
    return Desk(
        jobs=plane.jobs,
        shelves=plane.shelves,
        base=plane.control.base.name,
        server=Server(rank_max=plane.settings.engine.max_lora_rank, parameters=plane.control.parameters),
    )


def _body(raw: bytes) -> Creation:
    """The request, with every problem of its form told together. Raises BadJson, BadField."""
    try:
        body = Creation.model_validate_json(raw)
    except ValidationError as error:
        found = error.errors(include_url=False)
        if found[0]["type"] == "json_invalid":
            raise BadJson(f"The body is not JSON: {found[0]['msg']}") from None
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found]
        raise BadField("; ".join(lines), param=".".join(map(str, found[0]["loc"])) or None) from None
    _check(body.metadata or {})
    return body


def _check(metadata: dict[str, str]) -> None:
    if len(metadata) > PAIRS_MAX:
        raise BadField(f"'metadata' has {len(metadata)} pairs; {PAIRS_MAX} are allowed.", param="metadata")
    for name, text in metadata.items():
        printable(name + text, "metadata")
        if len(name) > KEY_CHARS_MAX or len(text) > VALUE_CHARS_MAX:
            raise BadField(
                f"A metadata key may be {KEY_CHARS_MAX} characters long and its value {VALUE_CHARS_MAX}.",
                param="metadata",
            )


def _job(plane: Plane, key: Key, id_: str) -> Job:
    """The tenant's job: another tenant's is as unknown as one that never was."""
    job = plane.jobs.get(id_[:128])
    if job.tenant != key.tenant:
        raise JobNotFound(id_[:128])
    return job


def _document(plane: Plane, job: Job) -> dict[str, Any]:
    now = time.time()
    if job.state is JobState.SUCCEEDED and job.finished_at is not None and now < job.finished_at + VISIBLE_S:
        job = replace(job, state=JobState.RUNNING, finished_at=None)  # not every gateway knows the model yet
    path = plane.settings.runs / job.id / VERDICT
    verdict = documents.verdict(path.read_text(encoding="utf-8")) if path.is_file() else None
    return documents.job(job, base=plane.control.base.name, tuned=_tuned(plane, job), verdict=verdict)


def _tuned(plane: Plane, job: Job) -> str:
    """The name of what the job has trained: the version's own, since two jobs may have made the same bytes."""
    if job.version is None or job.state is not JobState.SUCCEEDED:
        return ""
    plain = f"{job.name}:{job.version}"
    try:
        return of_version(plane.control.base.name, plane.control.adapters.get(job.name, job.version)) or plain
    except AdapterError:
        return plain  # the registry is away: this is another name of the same
