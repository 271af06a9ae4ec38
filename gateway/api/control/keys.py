"""`/v1/keys`: made, listed and revoked by operators. A secret is shown once, when it is made."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.keys import Capture, Key, Limits, Role, mint
from gateway.api.control.caller import InPlane, KeyReader, Operator
from gateway.control import actor

router = APIRouter(prefix="/v1/keys")


class NewLimits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrent: int | None = None
    token_budget: int | None = None


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    tenant: str = "default"
    roles: list[str] = Field(default_factory=lambda: [str(Role.USER)])
    models: list[str] | None = None
    capture: Capture = "full"
    expires_at: float | None = None
    limits: NewLimits = Field(default_factory=NewLimits)


@router.post("", status_code=201)
def create_key(body: NewKey, plane: InPlane, key: Operator) -> dict[str, Any]:
    secret, made = mint(
        tenant=body.tenant,
        name=body.name,
        roles=body.roles,
        now=time.time(),
        who=actor(key),
        expires_at=body.expires_at,
        models=body.models,
        capture=body.capture,
        limits=Limits(**body.limits.model_dump()),
    )
    return {"secret": secret, **document(plane.control.keys.insert(made))}


@router.get("")
def list_keys(plane: InPlane, key: KeyReader) -> dict[str, Any]:
    return {"object": "list", "data": [document(k) for k in plane.control.keys.list()], "has_more": False}


@router.delete("/{key_id}")
def revoke_key(key_id: str, plane: InPlane, key: Operator) -> dict[str, Any]:
    """Revoked for good; no gateway takes it any more 250 ms later."""
    revoked = plane.control.keys.revoke(key_id, who=actor(key), now=time.time())
    return {"id": revoked.id, "object": "key", "deleted": True}


def document(key: Key) -> dict[str, Any]:
    """A key as anyone may see it: without its secret, which nobody has any more."""
    return {
        "id": key.id,
        "object": "key",
        "tenant": key.tenant,
        "name": key.name,
        "roles": sorted(key.roles),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "models": None if key.models is None else sorted(key.models),
        "capture": key.capture,
        "limits": dict(key.limits.items()),
    }
