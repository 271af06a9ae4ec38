"""How an engine with our plugin says that a request's logits were NaN: a word and a little JSON in an error message.

Pure, and shared by both ends: `tripwire` and the scripted engine write it, `refusals` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from gateway.engines.errors import EnginePoisoned

MARK = "graftline_nan "
IN_JSON = MARK.encode()
_NAMES_MAX = 16


def write(*, at: float, first_at: float, first: Sequence[str], contained: bool = False) -> str:
    """Unix seconds of the engine's clock, now and the first time; the engine-side names that were the first; whether
    the engine cleans up behind such requests."""
    told = {"at": at, "first_at": first_at, "first": list(first)[:_NAMES_MAX], "contained": contained}
    return MARK + orjson.dumps(told).decode()


def read(engine: str, message: str) -> EnginePoisoned:
    """The error that a marked message stands for; one that cannot be read is the error without its details."""
    words = "The engine's numbers for this request were not finite, so it ended the request."
    try:
        told = orjson.loads(message.partition(MARK)[2])
        return EnginePoisoned(
            words,
            engine=engine,
            at=float(told["at"]),
            first_at=float(told["first_at"]),
            first=tuple(map(str, told["first"])),
            contained=told["contained"] is True,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return EnginePoisoned(words, engine=engine)
