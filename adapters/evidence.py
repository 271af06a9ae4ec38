"""Bodies of evidence as plain JSON, the same from memory and from a row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters.values import Evidence

#: Evidence kept of one kind, about one version, seen on one replica: a restart loads everything anew.
KEPT_MAX = 20


def kept(evidence: Evidence) -> Evidence:
    """The evidence as it comes back from a row."""
    return replace(evidence, body=json.loads(body_text(evidence.body)))


def body_text(body: Mapping[str, Any]) -> str:
    """The body as JSON that every parser takes: a number that is none becomes the word for it."""
    return json.dumps(_plain(body), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)
