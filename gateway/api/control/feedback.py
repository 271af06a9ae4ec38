"""`/v1/feedback`: what people and judges say of answers. Kept on the disk before it is answered, joined later."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.access.keys import Key, Role
from gateway.api.control.caller import InPlane, Reader, having
from gateway.errors import BadField
from gateway.saying import Saying, about, document
from gateway.words import NAME_CHARS_MAX, Kind, RaterKind, TargetKind, Word, speaker
from monitoring.records.events import Feedback
from monitoring.records.store import Loop

router = APIRouter(prefix="/v1/feedback")

ITEMS_MAX = LISTED_MAX = 1000
_ERRORS_TOLD = 10
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def saying(request: Request) -> Saying:
    found: Saying = request.app.state.saying
    return found


InSaying = Annotated[Saying, Depends(saying)]
Sender = Annotated[Key, Depends(having(Role.USER, Role.ENGINEER))]


class Said(BaseModel):
    """One word. What belongs to which kind is checked in `gateway.words`, for the CLI too."""

    model_config = ConfigDict(extra="forbid", strict=True)

    target: str
    target_kind: TargetKind = "completion"
    kind: Kind
    name: str = ""
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    text: str | None = None
    other: str | None = None
    rater: str = ""
    rater_kind: RaterKind = "user"

    def word(self) -> Word:
        taken_back = self.value is None and "value" in self.model_fields_set
        return Word(**self.model_dump(), taken_back=taken_back)


class Batch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    items: list[Said] = Field(min_length=1, max_length=ITEMS_MAX)


@router.post("")
def send(body: Annotated[dict[str, Any], Body()], saying: InSaying, key: Sender) -> dict[str, Any]:
    """One word, or up to 1000 as `items`: all of them are kept, or none. Never tells whether the target is known."""
    try:
        found = Batch.model_validate(body) if "items" in body else Said.model_validate(body)
    except ValidationError as problem:
        told = problem.errors(include_input=False, include_url=False, include_context=False)
        raise RequestValidationError(told[:_ERRORS_TOLD]) from problem
    if isinstance(found, Said):
        (said,) = saying.say([found.word()], speaker(key))
        return _receipt(found, said)
    kept = saying.say([item.word() for item in found.items], speaker(key), batch=True)
    return {"object": "list", "data": [_receipt(item, said) for item, said in zip(found.items, kept, strict=True)]}


@router.get("")
def list_feedback(
    plane: InPlane,
    key: Reader,
    target: Annotated[str | None, Query(max_length=NAME_CHARS_MAX)] = None,
    since: Annotated[float, Query(ge=0, lt=1e11, description="Unix seconds.")] = 0,
    after: Annotated[str, Query(description="The id that the page before ended with.")] = "",
    limit: Annotated[int, Query(ge=1, le=LISTED_MAX)] = 100,
    history: Annotated[bool, Query(description="Also what a later word has replaced.")] = False,
    pending: Annotated[bool, Query(description="The oldest that no answer of this tenant is known for.")] = False,
) -> dict[str, Any]:
    """What was said in the caller's tenant, oldest first; of one rater and kind the last word."""
    target = None if target is None else about(target, plane.secret)
    return listed(
        plane.records,
        key.tenant,
        target=target,
        since=since,
        after=after,
        limit=limit,
        history=history,
        pending=pending,
    )


def listed(
    loop: Loop, tenant: str, *, target: str | None, since: float, after: str, limit: int, history: bool, pending: bool
) -> dict[str, Any]:
    """A page of what was said; `pending` takes no other condition."""
    if after and not _ID.fullmatch(after):
        raise BadField("'after' is the id of a feedback.", param="after")
    if pending:
        if after or target is not None or since or history:
            raise BadField("'pending' goes with 'limit' alone.", param="pending")
        rows = loop.pending(tenant=tenant, limit=limit + 1)
    else:
        rows = loop.feedback(
            tenant=tenant, target=target, since=since or None, after=after or None, limit=limit + 1, history=history
        )
    data = [document(each) for each in rows[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


def _receipt(item: Said, said: Feedback) -> dict[str, Any]:
    """The caller's own words for the target: nothing here may depend on whether it is known."""
    return {"object": "feedback", "id": said.id, "target": item.target, "kind": said.kind}
