"""Doing a run again: the recipe with every choice as it was made, and what is not as it was then. Light.

A document is what a run leaves in run.json, or what a version carries of it in training.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from training.base.digest import folder_digest
from training.recipes.errors import BadRecipe
from training.recipes.recipe import Recipe, build

#: Where a recipe says what was chosen for it. A choice may follow from the machine's memory, so it is not made again.
_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "rank": ("adapter", "rank"),
    "alpha": ("adapter", "alpha"),
    "learning_rate": ("optim", "learning_rate"),
    "steps": ("optim", "steps"),
    "batch": ("optim", "batch"),
    "accumulate": ("optim", "accumulate"),
    "warmup_steps": ("optim", "warmup_steps"),
    "precision": ("optim", "precision"),
    "evaluate_every": ("optim", "evaluate_every"),
    "tokens_max": ("data", "tokens_max"),
    "liked_weight": ("kto", "liked_weight"),
    "disliked_weight": ("kto", "disliked_weight"),
}


def recipe_of(
    document: Mapping[str, Any], *, name: str, found: Callable[[str], str] = str, start: str | None = None
) -> Recipe:
    """The recipe of a run, with nothing left to choose.

    `found` gives the place of rows that are named by content, `start` is the adapter that was gone on from. Raises
    BadRecipe where the document has no recipe, and what `found` raises.
    """
    recipe, chosen = document.get("recipe"), document.get("chosen")
    if not isinstance(recipe, Mapping) or not isinstance(chosen, Mapping):
        raise BadRecipe(["the version has no record of a recipe and of what was chosen for it"])
    fields: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in recipe.items()
    }
    fields |= {"name": name, "method": chosen.get("method", fields.get("method"))}
    data = fields.get("data", {})
    for key in ("train", "held"):
        if data.get(key):
            data[key] = found(data[key])
    if data.get("replay"):
        data["replay"] = {**data["replay"], "source": found(data["replay"]["source"])}
    if start:
        fields["start_from"] = start
    for key, (section, place) in _PLACES.items():
        if key in chosen and not (start and section == "adapter"):
            fields.setdefault(section, {})[place] = chosen[key]
    if "optim" in fields:
        fields["optim"]["epochs"] = None
    return build(fields)


def standing(base: Path, then: Mapping[str, Any]) -> dict[str, Any]:
    """What a run on this machine would rest on, as far as it is known before it: versions, base, template."""
    template = base / "chat_template.jinja"
    return {
        "base": {"name": base.name, "digest": folder_digest(base)},
        "template": hashlib.sha256(template.read_bytes()).hexdigest() if template.is_file() else None,
        "versions": {name: _version(name) for name in then.get("versions", {})},
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What is not as it was, one line each; of what only one of them knows nothing is said."""
    return tuple(_different(then, now))


def _different(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    was, is_ = then.get("base") or {}, now.get("base") or {}
    if was.get("digest") and is_.get("digest") and was["digest"] != is_["digest"]:
        yield f"base: {was['digest']} ({was.get('name')}) then, {is_['digest']} ({is_.get('name')}) now"
    if then.get("template") and "template" in now and then["template"] != now["template"]:
        yield f"chat template: {then['template'][:12]} then, {str(now['template'])[:12]} now"
    before, after = then.get("rows") or {}, now.get("rows") or {}
    if before and after and before.get("sha256") != after.get("sha256"):
        counts = f"{before.get('count')} then, {after.get('count')} now"
        yield f"rows: {counts}; what is learnt from is not what it was"
    for name, old in (then.get("versions") or {}).items():
        new = (now.get("versions") or {}).get(name, old)
        if new != old:
            yield f"{name}: {old} then, {new or 'not installed'} now"
    picked, chosen = then.get("chosen") or {}, now.get("chosen") or {}
    for name in _PLACES:
        if name in picked and name in chosen and picked[name] != chosen[name]:
            yield f"{name}: {picked[name]} then, {chosen[name]} now"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
