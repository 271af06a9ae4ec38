"""`/v1/review`: answers that people look at again. Reviewers hold the role engineer; auditors may look at the lists."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from gateway import reviewing, reviewing_picks
from gateway.access.keys import Key, Role
from gateway.api.control import review_documents as documents
from gateway.api.control.caller import Engineer, InPlane, Plane, having
from gateway.control import actor
from gateway.reviewing import Desk
from gateway.reviewing_picks import Wish
from monitoring.review.label_studio import exported
from monitoring.review.picking import Query as Matching
from monitoring.review.values import By, Kind, Said, State, Thumbs

router = APIRouter(prefix="/v1/review")

Looker = Annotated[Key, Depends(having(Role.ENGINEER, Role.AUDITOR))]
#: Who reviews, where one key serves several people; the key's own name when it is left out.
Reviewer = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Short = Annotated[str, StringConstraints(max_length=512)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Moment = Annotated[float, Field(ge=0, le=253370764800, allow_inf_nan=False)]
EXPORT_MAX = 200


class Among(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: _Short = ""
    adapter: _Short = ""
    arm: _Short = ""
    experiment: _Short = ""
    metadata: dict[_Short, _Short] = Field(default_factory=dict, max_length=16)
    completions: list[_Short] = Field(default_factory=list, max_length=1000)
    since: _Moment | None = None
    until: _Moment | None = None


class Picks(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: By
    query: Among = Field(default_factory=Among)
    n: int = Field(20, ge=1, le=1000, strict=True)
    compare: bool = Field(False, strict=True)
    overlap: int = Field(1, ge=1, le=100, strict=True)
    dry_run: bool = Field(False, strict=True)


class Next(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reviewer: Reviewer = ""
    kind: Kind | None = None


class Skip(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reviewer: Reviewer = ""


class Spoken(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reviewer: Reviewer = ""
    thumbs: Thumbs | None = None
    scalars: dict[str, _Finite] = Field(default_factory=dict, max_length=64)
    comment: str = ""
    correction: str | None = None
    choice: Literal["left", "right", "tie"] | None = None


@router.post("/picks", status_code=201)
def pick(body: Picks, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Make tasks of the records that most deserve a look; each says why. Only this tenant's, with captured bodies."""
    now = time.time()
    wish = wished(body, now)
    return documents.picked(
        reviewing_picks.pick(desk(plane), key.tenant, wish, who=actor(key), now=now, dry_run=body.dry_run)
    )


@router.post("/next")
def following(body: Next, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """The next task, this reviewer's for `review_claim_s`; `task` is null when nothing waits for them."""
    who = _called(body.reviewer, key)
    found = reviewing.following(desk(plane), key.tenant, who, now=time.time(), kind=body.kind)
    return documents.claim(found)


@router.get("/agreement")
def agreement(plane: InPlane, key: Looker) -> dict[str, Any]:
    """How far reviewers agree, on this tenant's tasks."""
    return documents.agreement(plane.control.reviews.answers(key.tenant))


@router.get("/export")
def export(
    plane: InPlane,
    key: Looker,
    state: State = "all",
    kind: Kind = Kind.LABEL,
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=EXPORT_MAX)] = 100,
) -> list[dict[str, Any]]:
    """Tasks of one kind in Label Studio's JSON, oldest first; `after` is the last one's `data.graftline_task`."""
    items = reviewing.exports(desk(plane), key.tenant, state=state, kind=kind, after=after, limit=limit)
    return exported(items)


@router.post("/import")
async def bring(request: Request, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """What was labelled in Label Studio, as it exports it (JSON); all of it or nothing."""
    data = await request.body()
    found = await run_in_threadpool(reviewing.bring, desk(plane), key.tenant, data, now=time.time(), key_id=key.id)
    return documents.imported(found)


@router.get("")
def list_tasks(
    plane: InPlane,
    key: Looker,
    state: State = "open",
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Tasks, oldest first, without words, and without what would tell a pair apart."""
    found = plane.control.reviews.list(key.tenant, state=state, after=after, limit=limit + 1)
    return documents.listed(found[:limit], more=len(found) > limit)


@router.get("/{task}")
def get(task: str, plane: InPlane, key: Looker) -> dict[str, Any]:
    return documents.task(plane.control.reviews.get(key.tenant, task))


@router.post("/{task}/answer")
def answer(task: str, body: Spoken, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Say what you think of it; it is durable as feedback when this returns."""
    who = _called(body.reviewer, key)
    done = reviewing.answer(
        desk(plane), key.tenant, task, who, spoken(body), body.choice, now=time.time(), key_id=key.id
    )
    return documents.task(done)


@router.post("/{task}/skip")
def skip(task: str, body: Skip, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Pass it over: others may have it, and it does not come back to this reviewer."""
    who = _called(body.reviewer, key)
    return documents.task(reviewing.skip(desk(plane), key.tenant, task, who, now=time.time()))


def wished(body: Picks, now: float) -> Wish:
    """What a body asks for; without an end it is everything up to now."""
    among = body.query
    return Wish(
        by=body.by,
        query=Matching(
            model=among.model,
            adapter=among.adapter,
            arm=among.arm,
            experiment=among.experiment,
            metadata=among.metadata,
            completions=tuple(among.completions),
        ),
        n=body.n,
        since=among.since or 0.0,
        until=now + 1 if among.until is None else among.until,
        compare=body.compare,
        overlap=body.overlap,
    )


def spoken(body: Spoken) -> Said:
    """What a body says; the choice is of a side, and so not among it."""
    return Said(thumbs=body.thumbs, scalars=body.scalars, comment=body.comment, correction=body.correction)


def desk(plane: Plane) -> Desk:
    return Desk(
        store=plane.control.reviews,
        records=plane.records,
        spool=plane.spool,
        secret=plane.secret,
        claim_s=plane.settings.review_claim_s,
    )


def _called(reviewer: str, key: Key) -> str:
    return reviewer.strip() or key.name
