"""`/v1/models`: what can be asked for, in OpenAI's shape. No path of the server is ever told."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gateway.access.identify import allows
from gateway.api.control.caller import AnyCaller, Engineer, InPlane
from gateway.control import actor, retire_model
from gateway.errors import UnknownModel
from gateway.pipeline import current
from gateway.routing.resolve import family, resolve
from gateway.routing.snapshot import Listed
from gateway.routing.tuned import adapter_of

router = APIRouter(prefix="/v1/models")


@router.get("")
def list_models(plane: InPlane, key: AnyCaller) -> dict[str, Any]:
    """The base, and every alias that this key may use."""
    snapshot = current(plane.gateway)
    base = snapshot.base.engine_name
    rows = [_document(row, base) for row in snapshot.listed if allows(key, row.id, family(row.id))]
    return {"object": "list", "data": rows, "has_more": False}


@router.get("/{model:path}")
def get_model(model: str, plane: InPlane, key: AnyCaller) -> dict[str, Any]:
    """One model by any spelling that requests take: `support`, `support@candidate`, `support:7`."""
    snapshot = current(plane.gateway)
    target = resolve(snapshot, key, model)
    for row in snapshot.listed:
        if row.id == model:
            return _document(row, snapshot.base.engine_name)
    created = next((row.created for row in snapshot.listed if row.id == family(model)), plane.control.base.created)
    return _document(Listed(id=model, created=created, digest=target.digest), snapshot.base.engine_name)


@router.delete("/{model:path}")
def delete_model(model: str, plane: InPlane, key: Engineer) -> dict[str, Any]:
    """Retire an adapter: one version by `name:7`, or a name with everything under it."""
    if family(model) == plane.control.base.name:
        raise UnknownModel("The base cannot be deleted: it is what the engine was started with.")
    if adapter_of(model):  # what a job has trained is one version, and its aliases go with it
        target = resolve(current(plane.gateway), key, model)
        name, _, number = target.adapter.partition(":")
        plane.control.registry.retire(name, int(number), who=actor(key), why="DELETE /v1/models", take_down=True)
        return {"id": model, "object": "model", "deleted": True}
    retired = retire_model(plane.control, model, who=actor(key), why="DELETE /v1/models")
    return {"id": retired, "object": "model", "deleted": True}


def _document(row: Listed, base: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "model",
        "created": row.created,
        "owned_by": "graftline",
        "parent": base if row.digest else None,
        "root": f"{row.id}@{row.digest}" if row.digest else row.id,
    }
