"""Marks by which caches and answers tell versions and tenants apart."""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import sha256


@lru_cache(maxsize=65536)
def cache_salt(digest: str, tenant: str) -> str:
    """Keeps versions and tenants apart in every cache of the engine."""
    return hmac.new(digest.encode(), tenant.encode(), sha256).hexdigest()[:32]


@lru_cache(maxsize=65536)
def fingerprint(base: str, adapter: str) -> bytes:
    """What made an answer, in OpenAI's field for it: the beginnings of both digests."""
    parts = [digest.removeprefix("sha256:")[:12] for digest in (base, adapter) if digest]
    return ("fp_" + "_".join(parts)).encode()
