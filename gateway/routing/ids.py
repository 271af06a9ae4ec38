"""Names of requests on the wire."""

from __future__ import annotations

import os

_AT_ONCE = 256
_BYTES = 16

_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)


def wire_id() -> str:
    """A new name for a request, 128 random bits: the engine derives the completion's id from it.

    Drawn many at a time: each draw lets go of the interpreter's lock, which another thread may then keep for a while.
    """
    if not _drawn:
        text = os.urandom(_BYTES * _AT_ONCE).hex()
        _drawn.extend(text[at : at + 2 * _BYTES] for at in range(0, len(text), 2 * _BYTES))
    return _drawn.pop()
