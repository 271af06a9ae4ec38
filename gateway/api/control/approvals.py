"""`/v1/approvals`: decisions that wait for a person. Who answered, when and why stays with the proposal."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from adapters.experiments.values import Answer
from gateway.api.control.caller import AnyCaller, InPlane, Reader
from gateway.api.control.experiments import Id, Name
from gateway.api.control.experiments_documents import proposed
from gateway.control import actor
from gateway.experimenting.opening import answer_proposal

router = APIRouter(prefix="/v1/approvals")

ANSWERS = {"approve": Answer.APPROVED, "reject": Answer.REJECTED}


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    answer: Literal["approve", "reject"]
    why: str = Field("", max_length=2000)


@router.get("")
def list_approvals(
    plane: InPlane, key: Reader, experiment: Name = None, every: Annotated[bool, Query(alias="all")] = False
) -> dict[str, Any]:
    """What waits to be answered or carried out, the newest first; with `all` also what is over."""
    found = plane.control.experiments.proposals(experiment, open_only=not every)
    return {"object": "list", "data": [proposed(each) for each in found], "has_more": False}


@router.post("/{proposal}")
def answer(proposal: Id, body: Said, plane: InPlane, key: AnyCaller) -> dict[str, Any]:
    """Approve or reject; the key must have the role that the proposal asks for."""
    answered = answer_proposal(
        plane.control,
        proposal,
        ANSWERS[body.answer],
        who=actor(key),
        why=body.why,
        now=time.time(),
        roles={str(role) for role in key.roles},
    )
    return proposed(answered)
