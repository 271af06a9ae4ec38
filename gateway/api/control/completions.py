"""`/v1/chat/completions`: the stored ones, as OpenAI's SDK lists, reads, relabels and deletes them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from gateway.api.control.caller import AnyCaller, InPlane
from gateway.api.control.completions_documents import completion, messages
from gateway.api.control.feedback import InSaying, Sender
from gateway.errors import BadField, UnknownCompletion
from gateway.saying import relabel
from gateway.words import speaker, spelled
from monitoring.records.errors import NotFound

router = APIRouter(prefix="/v1/chat/completions")

PAIRS_MAX, KEY_CHARS_MAX, VALUE_CHARS_MAX = 16, 64, 512
#: An answer is in the database some 200 ms after its client has it: who asks at once is not turned away. The same for
#: every id, so the wait tells nothing either; and only so many wait at once, for each look is a query.
_LOOKS_AFTER_S = (0.0, 0.1, 0.2, 0.3, 0.4)
WAITING_MAX = 16

_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_Found = TypeVar("_Found")

Order = Literal["asc", "desc"]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=512)]


def waiting(request: Request) -> asyncio.Semaphore:
    found: asyncio.Semaphore = request.app.state.waiting
    return found


Waiting = Annotated[asyncio.Semaphore, Depends(waiting)]


class Relabelled(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    metadata: dict[str, str] | None


@router.get("")
def list_stored(
    request: Request,
    plane: InPlane,
    key: AnyCaller,
    model: Annotated[str | None, Query(max_length=512)] = None,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    """The tenant's stored completions; `metadata[key]=value` leaves those that hold the pair."""
    labels = {
        found[1]: value for name, value in request.query_params.multi_items() if (found := _FILTER.fullmatch(name))
    }
    _check(labels)
    try:
        rows = plane.records.stored(
            key.tenant, model=model, metadata=labels, after=after, limit=limit + 1, newest_first=order == "desc"
        )
    except NotFound:
        raise BadField("'after' names no stored completion.", param="after") from None
    return _page([completion(each) for each in rows], limit)


@router.get("/{completion_id}")
async def get_stored(completion_id: str, plane: InPlane, waiting: Waiting, key: AnyCaller) -> dict[str, Any]:
    """One stored completion, as it was answered, with the metadata that it has now."""
    return completion(
        await _patiently(waiting, completion_id, lambda: plane.records.stored_one(completion_id, key.tenant))
    )


@router.get("/{completion_id}/messages")
async def list_messages(
    completion_id: str,
    plane: InPlane,
    waiting: Waiting,
    key: AnyCaller,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    """The messages that the completion was asked with."""
    found = await _patiently(waiting, completion_id, lambda: plane.records.stored_one(completion_id, key.tenant))
    rows = messages(found)
    if order == "desc":
        rows.reverse()
    if after is not None:
        places = [place for place, row in enumerate(rows) if row["id"] == after]
        if not places:
            raise BadField("'after' names no message of this completion.", param="after")
        rows = rows[places[0] + 1 :]
    return _page(rows, limit)


@router.post("/{completion_id}")
async def update_stored(
    completion_id: str, body: Relabelled, plane: InPlane, waiting: Waiting, saying: InSaying, key: Sender
) -> dict[str, Any]:
    """Replace the metadata; what reserved keys (`feedback.thumbs` …) say becomes feedback first."""
    metadata = body.metadata or {}
    _check(metadata)
    await _patiently(waiting, completion_id, lambda: plane.records.stored_one(completion_id, key.tenant))
    return completion(await run_in_threadpool(relabel, plane.records, saying, speaker(key), completion_id, metadata))


@router.delete("/{completion_id}")
async def delete_stored(completion_id: str, plane: InPlane, waiting: Waiting, key: Sender) -> dict[str, Any]:
    """Stored no more. The record for the loop, where the key's policy keeps one, is not what `store` had asked for."""
    await _patiently(waiting, completion_id, lambda: plane.records.unstore(completion_id, key.tenant))
    return {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


async def _patiently(waiting: asyncio.Semaphore, completion_id: str, look: Callable[[], _Found]) -> _Found:
    """What `look` finds; for about a second, where it finds nothing at first. Raises UnknownCompletion."""
    for wait_s in _LOOKS_AFTER_S:
        if wait_s:
            if waiting.locked():
                break
            async with waiting:
                await asyncio.sleep(wait_s)
        try:
            return await run_in_threadpool(look)
        except NotFound:
            continue
    raise UnknownCompletion(completion_id)


def _check(metadata: dict[str, str]) -> None:
    if len(metadata) > PAIRS_MAX:
        raise BadField(f"'metadata' has {len(metadata)} pairs; {PAIRS_MAX} are allowed.", param="metadata")
    for name, text in metadata.items():
        spelled(name + text, "metadata")
        if len(name) > KEY_CHARS_MAX or len(text) > VALUE_CHARS_MAX:
            raise BadField(
                f"A metadata key may be {KEY_CHARS_MAX} characters long and its value {VALUE_CHARS_MAX}.",
                param="metadata",
            )


def _page(rows: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    data = list(rows[:limit])
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }
