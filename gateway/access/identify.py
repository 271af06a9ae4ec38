"""From the bytes a caller sends to the key they are, and what it may do. Pure: no clock, no I/O.

A `Keyring` is part of the routing snapshot: built when keys change, never changed, swapped whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from types import MappingProxyType

from gateway.access.errors import Forbidden, Unauthenticated
from gateway.access.keys import ID_PLACE, SECRET_CHARS_MAX, Key, Role


class Keyring:
    """Every key, found by what it proves. Immutable."""

    __slots__ = ("_by_id",)

    def __init__(self, keys: Sequence[Key]) -> None:
        self._by_id = MappingProxyType({key.id.encode(): (key, key.digest) for key in keys})

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, bearer: bytes | str | None, now: float) -> Key:
        """The key whose secret this is, valid at `now` (unix seconds). Raises Unauthenticated.

        An unknown id costs the same hash and the same comparison as a known one.
        """
        if not bearer:
            raise Unauthenticated.missing()
        if len(bearer) > SECRET_CHARS_MAX:
            raise Unauthenticated.rejected()
        raw = bearer if isinstance(bearer, bytes) else bearer.encode("utf-8", "surrogatepass")
        key, digest = self._by_id.get(raw[ID_PLACE], _NOBODY)
        if not compare_digest(sha256(raw).digest(), digest) or key is None or key.revoked_at is not None:
            raise Unauthenticated.rejected()
        if key.expires_at is not None and key.expires_at <= now:
            raise Unauthenticated.expired()
        return key


def token(authorization: bytes | None) -> bytes:
    """The secret in an Authorization header's value. Raises Unauthenticated when there is none."""
    if not authorization:
        raise Unauthenticated.missing()
    if authorization[:7].lower() != b"bearer " or not (secret := authorization[7:].strip()):
        raise Unauthenticated.missing()
    return secret


def allows(key: Key, model: str, name: str) -> bool:
    """Whether the key may use `model` as it was asked for, which names the adapter (or base) `name`.

    Naming `support` allows every alias and version of it; naming `support@candidate` allows that alone.
    """
    return key.models is None or name in key.models or model in key.models


def require(key: Key, *roles: Role) -> None:
    """Raises Forbidden unless the key has one of the roles."""
    if key.roles.isdisjoint(roles):
        raise Forbidden(sorted(key.roles), roles)


#: What an unknown id is compared with, to cost the same; it is nobody's even if a secret should hash to it.
_NOBODY: tuple[Key | None, bytes] = (None, bytes(32))
