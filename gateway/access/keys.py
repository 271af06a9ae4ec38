"""What a key is, how one is made, and whether a secret is its secret.

A secret reads `gl-<id>-<43 characters>`: the id finds the key, the 256 random bits prove it. Because they are random
and not chosen by a person, one sha256 is enough to keep; a slow hash would only slow the request path.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Final, Literal, TypeAlias, get_args

from gateway.access.errors import BadKey

#: What of a request is kept for the loop: bodies and numbers, numbers only, or nothing of the content at all.
Capture: TypeAlias = Literal["full", "metadata", "off"]

PREFIX: Final = "gl-"
SECRET_CHARS_MAX: Final = 96
#: Where the id stands in a secret.
ID_PLACE: Final = slice(len(PREFIX), len(PREFIX) + 16)
LIMIT_MAX: Final = 10**15
MODELS_MAX: Final = 256

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ID_BYTES = 10  #: 16 characters of base32, no padding
_RANDOM_BYTES = 32


class Role(StrEnum):
    """What a key may do. Roles do not include one another: a key holds each that it needs."""

    USER = "user"  #: infer, give feedback
    ENGINEER = "engineer"  #: adapters, experiments, training
    OPERATOR = "operator"  #: keys, configuration, erasure
    AUDITOR = "auditor"  #: read everything, change nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a key may use; None is no limit. Minutes slide; the budget is for the life of the key."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrent: int | None = None
    token_budget: int | None = None
    #: True when nothing is limited. Stored, because the request path asks it of every request.
    unlimited: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        free = all(value is None for _, value in self.items())
        object.__setattr__(self, "unlimited", free)

    def items(self) -> Iterator[tuple[str, int | None]]:
        return ((f.name, getattr(self, f.name)) for f in fields(self) if f.init)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, as stored. Times are unix seconds. The secret is not here: only `digest`, its sha256, is."""

    id: str
    tenant: str
    name: str
    roles: frozenset[Role]
    digest: bytes
    created_at: float
    created_by: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None
    revoked_by: str = ""
    models: frozenset[str] | None = None  #: None: all models
    capture: Capture = "full"
    limits: Limits = Limits()
    index: int = 0  #: the key's row in the quota ledger; given by the store, never reused; 0 before it is stored


def mint(
    *,
    tenant: str,
    name: str,
    roles: Iterable[Role | str],
    now: float,
    who: str = "",
    expires_at: float | None = None,
    models: Iterable[str] | None = None,
    capture: Capture = "full",
    limits: Limits | None = None,
    randomness: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[str, Key]:
    """A new secret, to be shown once, and the key to store. `now` and `expires_at` are unix seconds.

    Raises BadKey with everything that is wrong.
    """
    key_id = base64.b32encode(randomness(_ID_BYTES)).decode().lower()
    secret = f"{PREFIX}{key_id}-{base64.urlsafe_b64encode(randomness(_RANDOM_BYTES)).rstrip(b'=').decode()}"
    roles = list(roles)
    names = None if models is None else list(models)
    limits = limits or Limits()
    if problems := tuple(_problems(tenant, name, roles, now, expires_at, names, capture, limits)):
        raise BadKey(problems)
    return secret, Key(
        id=key_id,
        tenant=tenant,
        name=name,
        roles=frozenset(Role(role) for role in roles),
        digest=fingerprint(secret.encode()),
        created_at=now,
        created_by=who,
        expires_at=expires_at,
        models=None if names is None else frozenset(names),
        capture=capture,
        limits=limits,
    )


def fingerprint(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret).digest()


def verify(secret: str | bytes, key: Key) -> bool:
    """Whether this is the key's secret, in time that does not depend on the answer. Says nothing of expiry."""
    raw = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return hmac.compare_digest(fingerprint(raw), key.digest)


def _problems(
    tenant: str,
    name: str,
    roles: list[Role | str],
    now: float,
    expires_at: float | None,
    models: list[str] | None,
    capture: str,
    limits: Limits,
) -> Iterator[str]:
    if not _SLUG.fullmatch(tenant):
        yield f"The tenant is {tenant[:80]!r}; allowed: 1 to 63 of a-z, 0-9, and after the first '.', '_', '-'."
    if not (1 <= len(name) <= 120 and name.isprintable() and name.strip() == name):
        yield f"The name is {name[:80]!r}; allowed: 1 to 120 printable characters, no space at either end."
    unknown = [str(role) for role in roles if role not in set(Role)]
    if unknown or not roles:
        yield f"The roles are {', '.join(map(repr, unknown)) or 'none'}; allowed: one or more of {', '.join(Role)}."
    if expires_at is not None and not (math.isfinite(expires_at) and expires_at > now):
        yield f"The expiry is {expires_at}; allowed: a time in the future (now is {now:.0f})."
    if models is not None and not (1 <= len(models) <= MODELS_MAX and all(1 <= len(m) <= 255 for m in models)):
        yield f"{len(models)} models are named; allowed: 1 to {MODELS_MAX} names of 1 to 255 characters, or all."
    if capture not in get_args(Capture):
        yield f"The capture is {capture!r}; allowed: {', '.join(get_args(Capture))}."
    for limit, value in limits.items():
        if value is not None and not 1 <= value <= LIMIT_MAX:
            yield f"The limit {limit} is {value}; allowed: 1 to {LIMIT_MAX}, or none."
