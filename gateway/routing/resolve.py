"""Which target a model name means for this key. Pure."""

from __future__ import annotations

from gateway.access.identify import allows
from gateway.access.keys import Key
from gateway.errors import UnknownModel
from gateway.routing.snapshot import Snapshot
from gateway.routing.tuned import adapter_of
from gateway.values import Target


def resolve(snapshot: Snapshot, key: Key, model: str) -> Target:
    """The target behind `model`.

    Raises `UnknownModel` both where the name is unknown and where the key may not use it, in the same words: an
    answer must not tell a tenant which adapters others have.
    """
    target = snapshot.targets.get(model)
    if target is None or not allows(key, model, family(model)):
        raise UnknownModel(f"The model {model[:200]!r} does not exist, or this key may not use it.")
    return target


def family(model: str) -> str:
    """The name that an alias or a version belongs to: `support` for `support@candidate`, `support:7` and
    `ft:tidewell:acme:support:1a2b`."""
    return adapter_of(model) or model.partition("@")[0].partition(":")[0]
