"""`/v1/adapters/{name}/…`: what moves: promoted, rolled back, pinned, retired, verified again."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.control.adapters_documents import document, pointer
from gateway.api.control.caller import Engineer, InPlane
from gateway.control import actor

router = APIRouter()


class Promotion(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int
    alias: str = "live"
    expected: int | Literal["anywhere"] | None = "anywhere"
    why: str = ""
    on_unavailable: Literal["fail", "previous", "base"] | None = None
    override: str = Field("", max_length=2000, description="The reason to go past a closed gate; it is kept.")


class Reason(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    why: str = ""


class Rollback(Reason):
    alias: str = "live"


class Pin(Reason):
    alias: str = "live"
    pinned: bool = True


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
        override=body.override.strip(),
    )
    return pointer(alias)


@router.post("/{name}/rollback")
def rollback(name: str, body: Rollback, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Point an alias back at the version before."""
    return pointer(plane.control.registry.rollback(name, alias=body.alias, who=actor(key), why=body.why))


@router.post("/{name}/pin")
def pin(name: str, body: Pin, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Give an alias a slot of its own in every engine, or take it back (`pinned: false`)."""
    return pointer(plane.control.registry.pin(name, body.alias, body.pinned, who=actor(key), why=body.why))


@router.post("/{name}/{number}/verify")
def verify(name: str, number: int, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Read the stored bytes again, and compare them with their digest and their signature."""
    plane.control.registry.verify(name, number)
    version = plane.control.adapters.get(name, number)
    return {"object": "adapter.verification", "id": f"{name}:{number}", "digest": version.digest, "intact": True}


@router.delete("/{name}/{number}")
def retire(name: str, number: int, plane: InPlane, key: Engineer, why: str = "") -> dict[str, Any]:
    return document(plane.control.registry.retire(name, number, who=actor(key), why=why))
