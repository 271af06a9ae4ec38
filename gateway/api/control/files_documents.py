"""Files as OpenAI's SDK reads them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.files.values import File


def file(one: File) -> dict[str, Any]:
    """A file; `graftline` says what its lines hold."""
    return {
        "id": one.id,
        "object": "file",
        "bytes": one.bytes,
        "created_at": int(one.created_at),
        "filename": one.filename,
        "purpose": one.purpose,
        "status": one.state,
        "status_details": one.details or None,
        "expires_at": int(one.expires_at) if one.expires_at is not None else None,
        "graftline": {"kind": one.kind, "rows": one.rows, "digest": one.digest},
    }


def listed(files: Sequence[File], *, more: bool) -> dict[str, Any]:
    """One page."""
    data = [file(each) for each in files]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }
