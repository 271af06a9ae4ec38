"""What an analysis needs of each event, in a few dozen bytes: names become 64-bit codes, rows become numpy columns.

A million rows of text take seconds to read; a million of these take a hundredth of one. Each batch that is stored
leaves one chunk for each (book, kind): the experiment's exposures and outcomes, the tenant's feedback. The text rows
beside them stay the truth; chunks are written in the same transaction and go with the same month. Two of n names share
a code with a chance of about n² / 4e19: for ten million names, three in a million.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from monitoring.records.events import Event, Exposure, Feedback, Inference
from monitoring.records.periods import period_of

Rows: TypeAlias = NDArray[np.void]

UNIT_KINDS = ("user", "conversation", "key", "request")
KINDS = ("thumbs", "scalar", "comment", "correction", "preference", "implicit")
RATER_KINDS = ("user", "reviewer", "judge", "system")


class Page(IntEnum):
    """Which kind of rows a chunk holds."""

    EXPOSURES = 1
    OUTCOMES = 2
    FEEDBACK = 3


class Flag(IntFlag):
    """What came of a request. A broken answer whose client had left is LEFT and not FAILED. A 4xx is FAILED too: what
    is the client's own doing is alike in all arms, and an arm may make the engine refuse what another answers."""

    ANSWERED = 1
    FAILED = 2
    LEFT = 4
    RETRY = 8  # the client's SDK sent it again: the first try is the request
    FILTERED = 16


_LAYOUTS: dict[Page, tuple[str, tuple[tuple[str, str], ...]]] = {
    Page.EXPOSURES: (
        "<dqqqqqqdhB",
        (
            ("at", "<f8"),
            ("unit", "<i8"),
            ("request", "<i8"),
            ("completion", "<i8"),
            ("arm", "<i8"),
            ("tenant", "<i8"),
            ("tags", "<i8"),
            ("propensity", "<f8"),
            ("bucket", "<i2"),
            ("unit_kind", "u1"),
        ),
    ),
    Page.OUTCOMES: (
        "<qqqddddH",
        (
            ("request", "<i8"),
            ("completion", "<i8"),
            ("conversation", "<i8"),
            ("first_token_ms", "<f8"),
            ("total_ms", "<f8"),
            ("prompt_tokens", "<f8"),
            ("completion_tokens", "<f8"),
            ("flags", "<u2"),
        ),
    ),
    Page.FEEDBACK: (
        "<dqqqqdBB",
        (
            ("at", "<f8"),
            ("key", "<i8"),
            ("target", "<i8"),
            ("seat", "<i8"),
            ("name", "<i8"),
            ("value", "<f8"),
            ("kind", "u1"),
            ("rater_kind", "u1"),
        ),
    ),
}
_PACK = {page: struct.Struct(form).pack for page, (form, _) in _LAYOUTS.items()}
LAYOUT = {page: np.dtype(list(names)) for page, (_, names) in _LAYOUTS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Rows that were stored together. `id` is that of the first, `until` the latest moment (unix s) of any."""

    book: int
    page: int
    id: str
    until: float
    packed: bytes


def code(*names: str) -> int:
    """64 bits, signed, that stand for these names together. Depends on nothing else, so it can be stored."""
    return int.from_bytes(blake2b("\0".join(names).encode(), digest_size=8).digest(), "little", signed=True)


def tags_code(event: Exposure) -> int:
    """Stands for all tags of an exposure together; 0 for none."""
    return code(*(part for pair in sorted(event.tags.items()) for part in pair)) if event.tags else 0


def chunks(events: Iterable[Event]) -> list[Chunk]:
    """The chunks that these events leave, one for each month, book and page. Answers in no experiment leave none."""
    gathered: dict[tuple[str, int, Page], list[tuple[str, float, bytes]]] = {}
    for event in events:
        packed = _packed(event)
        if packed is not None:
            book, page, at, row = packed
            gathered.setdefault((period_of(event.id), book, page), []).append((event.id, at, row))
    return [
        Chunk(
            book=book,
            page=page,
            id=rows[0][0],
            until=max(at for _, at, _ in rows),
            packed=b"".join(row for *_, row in rows),
        )
        for (_, book, page), rows in gathered.items()
    ]


def unpacked(page: Page, packed: Sequence[bytes]) -> Rows:
    """The rows of these chunks' bytes, one structured array."""
    return np.frombuffer(b"".join(packed), dtype=LAYOUT[page])


def _packed(event: Event) -> tuple[int, Page, float, bytes] | None:
    if isinstance(event, Exposure):
        return code(event.experiment), Page.EXPOSURES, event.at, _PACK[Page.EXPOSURES](*_exposure(event))
    if isinstance(event, Feedback):
        return code(event.tenant), Page.FEEDBACK, event.at, _PACK[Page.FEEDBACK](*_feedback(event))
    if event.experiment:
        return code(event.experiment), Page.OUTCOMES, event.started_at, _PACK[Page.OUTCOMES](*_outcome(event))
    return None


def _key(tenant: str, kind: str, name: str) -> int:
    """0 where there is no name: it joins nothing."""
    return code(tenant, kind, name) if name else 0


def _exposure(event: Exposure) -> tuple[Any, ...]:
    tenant = event.tenant
    return (
        event.at,
        code(tenant, event.unit_kind, event.unit),
        _key(tenant, "request", event.request_id),
        _key(tenant, "completion", event.completion_id),
        code(event.arm),
        code(tenant),
        tags_code(event),
        event.propensity,
        event.bucket,
        UNIT_KINDS.index(event.unit_kind),
    )


def _outcome(event: Inference) -> tuple[Any, ...]:
    tenant = event.tenant
    flags = Flag(0)
    if event.status == 200 and not event.incomplete:
        flags |= Flag.ANSWERED
    elif event.error == "client_left":
        flags |= Flag.LEFT
    else:
        flags |= Flag.FAILED
    if event.retry_count:
        flags |= Flag.RETRY
    if event.finish == "content_filter":
        flags |= Flag.FILTERED
    return (
        _key(tenant, "request", event.request_id),
        _key(tenant, "completion", event.completion_id),
        _key(tenant, "conversation", event.conversation),
        math.nan if event.first_token_ms is None else event.first_token_ms,
        event.total_ms,
        float(event.prompt_tokens),
        float(event.completion_tokens),
        int(flags),
    )


def _feedback(event: Feedback) -> tuple[Any, ...]:
    return (
        event.at,
        code(event.id),
        code(event.tenant, event.target_kind, event.target),
        code(*event.seat),
        code(event.name),
        math.nan if event.value is None else event.value,
        KINDS.index(event.kind),
        RATER_KINDS.index(event.rater_kind),
    )
