"""What a dataset is, and its name: a digest over its rows and everything that decided which they are. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from training.data.errors import DatasetDamaged
from training.data.values import Kind

FILE = "manifest.json"
#: The report, by whether it is wanted as JSON.
REPORTS = {False: "report.txt", True: "report.json"}
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One split. `digest` is over its rows' canonical JSON, a line each, in their order."""

    rows: int
    tokens: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything here is in the digest; no clock and no path is here, so the same input gives the same name.

    `left` counts candidates and records by why they left, `words_left` what was said and came to nothing; `classes`
    holds the rows of both labels and the weights for KTO; `policies` and `arms` count whose answers the rows hold.
    """

    kind: Kind
    origin: str  # records, or the format and digest of a file
    rules: Mapping[str, Any]
    template: str
    base: str
    since: float | None = None
    until: float | None = None
    seen: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    words_left: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Part]
    classes: Mapping[str, float] = field(default_factory=dict)
    policies: Mapping[str, int] = field(default_factory=dict)
    arms: Mapping[str, int] = field(default_factory=dict)
    leaks: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    format: int = FORMAT

    def document(self) -> dict[str, Any]:
        return {"object": "dataset", **asdict(self)}

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(canonical(self.document())).hexdigest()


def canonical(document: Any) -> bytes:
    """One way to write a document."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def parse(body: bytes) -> Manifest:
    """The manifest of these bytes. Raises DatasetDamaged."""
    try:
        document = orjson.loads(body)
        if document.pop("object") != "dataset" or document["format"] != FORMAT:
            raise DatasetDamaged("The manifest is of no dataset, or of a later version of this program.")
        parts = {name: Part(**part) for name, part in document.pop("parts").items()}
        return Manifest(parts=parts, warnings=tuple(document.pop("warnings")), **document)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
        raise DatasetDamaged(f"The manifest cannot be read: {problem}") from problem
