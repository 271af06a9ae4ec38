"""The names people use: `support`, `support@candidate`, `support:7`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from adapters.errors import BadName, shown

LIVE = "live"
CANDIDATE = "candidate"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByAlias:
    """`support` or `support@candidate`."""

    name: str
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ByNumber:
    """`support:7`."""

    name: str
    number: int


def check_name(name: str, *, reserved: frozenset[str] = frozenset(), what: str = "adapter") -> str:
    """Return `name` if an adapter (or alias) may be called so. Raises BadName."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadName(
            f"{shown(name)} cannot name an {what}. Allowed: 1 to 63 characters of a-z, 0-9, '.', '_' and '-', "
            "the first a letter or a digit."
        )
    if name in reserved:
        raise BadName(f"{name!r} is the name of the base model. Choose another name for the {what}.")
    return name


def parse(model: str) -> ByAlias | ByNumber:
    """Read what a client wrote in `model`. Raises BadName."""
    name, mark, rest = model.partition(":")
    if mark:
        if not _NUMBER.fullmatch(rest):
            raise BadName(f"{shown(model)} is not NAME:NUMBER. A version is written like support:7.")
        return ByNumber(name=check_name(name), number=int(rest))
    name, mark, rest = model.partition("@")
    return ByAlias(name=check_name(name), alias=check_name(rest, what="alias") if mark else LIVE)
