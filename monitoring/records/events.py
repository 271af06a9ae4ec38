"""The frozen values that are recorded, and the one JSON line each becomes in a spool.

A line begins with its `kind`: `inference`, `exposure` or `feedback`. A later kind (signal) gets a value here, an entry
in `_KINDS`, and a table of its own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from monitoring.records.errors import BadRecord

#: Nothing indexed is longer: PostgreSQL refuses index entries above about 2 700 bytes.
_Name: TypeAlias = Annotated[str, Field(max_length=512)]
_Count: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 53)]
_Ms: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
_Bucket: TypeAlias = Annotated[int, Field(ge=0, lt=10_000)]
_Chance: TypeAlias = Annotated[float, Field(gt=0, le=1)]

_VERSION_7 = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
#: The year 9999: calendars, and so the months that records are kept in, end there.
MOMENT_MAX_S = 253370764800

_last_tick = 0


def uuid7() -> str:
    """A new UUIDv7 (RFC 9562 §5.7, method 3): sorts by time, also within a millisecond, and cannot be guessed."""
    global _last_tick  # one process, one sequence
    tick = time.time_ns() * 4096 // 1_000_000  # 48 bits of milliseconds, then 12 bits of their fraction
    if tick <= _last_tick:
        tick = _last_tick + 1
    _last_tick = tick
    return from_parts(tick >> 12, tick & 0xFFF, secrets.randbits(62))


def from_parts(ms: int, fraction: int, noise: int) -> str:
    """The UUIDv7 of a unix time in ms, a 12-bit fraction of it and 62 further bits."""
    hexed = f"{ms << 80 | 7 << 76 | fraction << 64 | 2 << 62 | noise:032x}"
    return f"{hexed[:8]}-{hexed[8:12]}-{hexed[12:16]}-{hexed[16:20]}-{hexed[20:]}"


def moment(record_id: str) -> float:
    """The unix time, in seconds, at which a UUIDv7 was made."""
    return int(record_id[:8] + record_id[9:13], 16) / 1000


@with_config(ConfigDict(strict=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One request and what came of it. Text is redacted before it gets here. Times in ms count from `started_at`."""

    id: Annotated[str, Field(pattern=_VERSION_7)]
    completion_id: _Name = ""  # what the client was given, and sends feedback for
    request_id: _Name = ""
    tenant: _Name = ""
    key_id: _Name = ""
    endpoint: str  # chat | completions | responses | embeddings
    model: str  # as asked
    adapter: str = ""  # name:version
    digest: _Name = ""  # of the adapter; empty for the base
    base_digest: _Name = ""
    replica: str = ""
    arm: str = ""  # of an experiment
    experiment: _Name = ""  # its id; the answer counts there
    started_at: Annotated[float, Field(allow_inf_nan=False)]  # unix seconds
    first_byte_ms: _Ms | None = None
    first_token_ms: _Ms | None = None
    last_token_ms: _Ms | None = None
    total_ms: _Ms = 0.0
    status: _Count  # HTTP
    error: str = ""  # a code of ours
    finish: str = ""
    incomplete: bool = False  # the answer broke off after its first byte
    stream: bool = False
    attempts: _Count = 1
    retry_count: _Count = 0  # as the client's SDK counts
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    cached_tokens: _Count = 0
    user: str = ""
    conversation: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    captured: Literal["full", "metadata", "off"] = "metadata"
    stored: bool = False  # listed by the SDK's stored completions
    request: str | None = None  # redacted JSON
    response: str | None = None  # redacted JSON
    tainted: str = ""  # why the answer must not be trusted; never stored with the row, see `taints`


@with_config(ConfigDict(strict=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """A unit met an arm: one for each request in an experiment, written before the request is forwarded."""

    id: Annotated[str, Field(pattern=_VERSION_7)]
    at: Annotated[float, Field(allow_inf_nan=False)]  # unix seconds
    tenant: _Name = ""
    experiment: _Name  # its id
    alias: str = ""  # support@live
    unit: str  # pseudonymous, as `Inference.user` and `Inference.conversation` are
    unit_kind: Literal["user", "conversation", "key", "request"]
    arm: _Name
    digest: _Name = ""  # of the adapter that the arm serves
    propensity: _Chance = 1.0  # the chance of this arm when it was assigned
    bucket: _Bucket = 0
    request_id: _Name = ""  # of the inference that follows
    completion_id: _Name = ""  # of its first try, where it is known before
    tags: Mapping[str, str] = field(default_factory=dict)  # what the experiment is sliced by; few values, redacted


@with_config(ConfigDict(strict=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What somebody, or something, said of an answer or a conversation. Of what one rater says of the same thing
    (`seat`) the last counts, by `at`, then by id; what was said before is kept."""

    id: Annotated[str, Field(pattern=_VERSION_7)]
    at: Annotated[float, Field(allow_inf_nan=False)]  # unix seconds
    tenant: _Name = ""  # the caller's: it joins this tenant's answers and no others
    target: _Name  # chatcmpl-…, or a conversation as `Inference.conversation` has it
    target_kind: Literal["completion", "conversation"] = "completion"
    kind: Literal["thumbs", "scalar", "comment", "correction", "preference", "implicit"]
    name: _Name = ""  # of a scalar, or of what happened: copied, regenerated, abandoned
    rater: str = ""  # pseudonymous
    rater_kind: Literal["user", "reviewer", "judge", "system"] = "user"
    value: _Ms | None = None  # thumbs: above 0 is up; without one a thumb or a scalar is taken back
    text: str | None = None  # redacted
    other: _Name | None = None  # the answer that a preferred one was preferred to
    key_id: _Name = ""
    source: Literal["api", "sdk", "review"] = "api"

    @property
    def seat(self) -> tuple[str, ...]:
        """Whose word about what: a later one with the same seat takes this one's place."""
        about = (self.tenant, self.target_kind, self.target)
        return (*about, self.rater_kind, self.rater, self.kind, self.name, self.other or "")


Event: TypeAlias = Inference | Exposure | Feedback

_KINDS: dict[bytes, TypeAdapter[Any]] = {
    b'{"kind":"inference"': TypeAdapter(Inference),
    b'{"kind":"exposure"': TypeAdapter(Exposure),
    b'{"kind":"feedback"': TypeAdapter(Feedback),
}
_HEADS: dict[type[Event], bytes] = {
    Inference: b'{"kind":"inference",',
    Exposure: b'{"kind":"exposure",',
    Feedback: b'{"kind":"feedback",',
}


def encode(event: Event) -> bytes:
    """One JSON line, newline included. Raises BadRecord for text that is not Unicode."""
    try:
        body = orjson.dumps(event, default=dict, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as problem:
        raise BadRecord(f"Record {event.id} cannot be written as JSON: {problem}.") from problem
    return _HEADS[type(event)] + body[1:]


def decode(line: bytes) -> Event:
    """The event of one line, checked. Fields that this version does not know are ignored. Raises BadRecord."""
    adapter = _KINDS.get(line[: line.find(b",")])
    if adapter is None:
        raise BadRecord(f"A record must begin with one of {sorted(k.decode() for k in _KINDS)}; found {line[:40]!r}.")
    try:
        event: Event = adapter.validate_json(line)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "line"
        raise BadRecord(f"A record's {where} is wrong: {first['msg']}.") from problem
    if moment(event.id) >= MOMENT_MAX_S:
        raise BadRecord(f"Record {event.id} says it was made after the year 9998.")
    return _without_nul(event) if b"\\u0000" in line else event


def _without_nul(event: Event) -> Event:
    """PostgreSQL cannot hold NUL in text; a client may send one in a name."""
    clean: dict[str, Any] = {
        each.name: value.replace("\0", "\ufffd")
        for each in fields(event)
        if isinstance(value := getattr(event, each.name), str)
    }
    for name in ("metadata", "tags"):
        pairs: Mapping[str, str] = getattr(event, name, {})
        if pairs:
            clean[name] = {k.replace("\0", "\ufffd"): v.replace("\0", "\ufffd") for k, v in pairs.items()}
    return replace(event, **clean)
