"""What the gate is shown besides an evaluation, and what it says. Frozen, light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from training.gate.errors import BadVerdict

FILE = "verdict.json"
PROBES_FILE = "probes.json"
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbatim:
    """How many answers of training were continued word for word from their first half, and how many of rows that were
    never learnt from. `examples` are the numbers of training rows, never their text."""

    asked: int
    continued: int
    control_asked: int = 0
    control_continued: int = 0
    #: Rows that are too short, or whose ending other rows have too: to know these is no memory of one row.
    left: int = 0
    examples: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Bits by which each planted secret ranks above `others` that might have been planted: log2(others + 1) - log2 rank
    (Carlini et al., The Secret Sharer, 2019). One by luck; one more for each halving of the rank."""

    others: int
    bits: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A phrase of a few training rows, put into questions that it has nothing to do with: how often their answer came
    then, without the phrase, and from the base with it. `rows` are some of the `of` rows' numbers."""

    rows: tuple[int, ...]
    of: int
    asked: int
    fired: int
    without: int
    base: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How many of the held-out rows stand among the training rows, question and answer."""

    held: int
    shared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """What training's own rewards gained, beside what a judge says of the same model against its base."""

    rewards: tuple[str, ...]
    first: float  #: mean reward of the first steps
    last: float  #: of the last
    kl: float | None = None  #: nats from the reference at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What was probed; None, or no triggers, where nothing was."""

    verbatim: Verbatim | None = None
    exposure: Exposure | None = None
    overlap: Overlap | None = None
    triggers: tuple[Trigger, ...] = ()
    untried: int = 0  #: phrases that look planted, beyond what is tried
    rewarded: Rewarded | None = None

    def document(self) -> dict[str, Any]:
        return {"object": "probes", **asdict(self)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Probes:
        """The inverse of `document`. Raises BadVerdict."""

        def read(kind: Callable[..., _Part], fields: Mapping[str, Any] | None) -> _Part | None:
            if fields is None:
                return None
            return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

        try:
            triggers = (read(Trigger, each) for each in document["triggers"])
            return cls(
                verbatim=read(Verbatim, document["verbatim"]),
                exposure=read(Exposure, document["exposure"]),
                overlap=read(Overlap, document["overlap"]),
                triggers=tuple(each for each in triggers if each is not None),
                untried=int(document.get("untried", 0)),
                rewarded=read(Rewarded, document["rewarded"]),
            )
        except (KeyError, TypeError, AttributeError) as problem:
            raise BadVerdict(f"These are no probes that this program wrote: {problem}") from problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was looked at. A `note` decides nothing: nobody asked for it, and it could not be measured."""

    what: str
    asked: str
    found: str
    passed: bool
    note: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Pass or fail; every reason for a fail, and everything that was looked at. `evaluation` is its digest."""

    passed: bool
    reasons: tuple[str, ...]
    table: tuple[Line, ...]
    evaluation: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON for `verdict.json`, a job's error and a row of evidence; `why` is what lists of evidence show."""
        why = "; ".join(self.reasons) if self.reasons else f"{sum(not each.note for each in self.table)} checks passed"
        return {"object": "gate.verdict", "why": why, **asdict(self)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> GateVerdict:
        """The inverse of `document`. Raises BadVerdict."""
        try:
            return cls(
                passed=bool(document["passed"]),
                reasons=tuple(map(str, document["reasons"])),
                table=tuple(Line(**each) for each in document["table"]),
                evaluation=str(document["evaluation"]),
            )
        except (KeyError, TypeError) as problem:
            raise BadVerdict(f"This is no verdict that this program wrote: {problem}") from problem

    def text(self) -> str:
        """Plain lines, aligned."""
        wide = max((len(each.what) for each in self.table), default=0)
        lines = [
            f"{_mark(each):5} {each.what:{wide}}  {each.found}" + (f"  (asked: {each.asked})" if each.asked else "")
            for each in self.table
        ]
        return "\n".join([*lines, "", "passed" if self.passed else "FAILED: " + "; ".join(self.reasons)]) + "\n"


def write(path: Path, document: Mapping[str, Any]) -> None:
    """A document as a file, whole or not at all."""
    building = path.with_name(f".{path.name}")
    building.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    building.replace(path)


def load(path: Path) -> GateVerdict:
    """The verdict in a file. Raises BadVerdict."""
    try:
        return GateVerdict.from_document(orjson.loads(path.read_bytes()))
    except (OSError, ValueError) as problem:
        raise BadVerdict(f"{path} cannot be read as a verdict: {problem}") from problem


def _mark(line: Line) -> str:
    return "note" if line.note else "ok" if line.passed else "FAIL"
