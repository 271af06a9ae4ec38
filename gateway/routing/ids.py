"""Names of requests on the wire."""

from __future__ import annotations

import os


def wire_id() -> str:
    """A new name for a request, 128 random bits: the engine derives the completion's id from it."""
    return os.urandom(16).hex()
