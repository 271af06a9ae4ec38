"""What a version carries besides weights: a system prompt, sampling defaults and stop strings, in `graftline.json`.

The file lies beside the weights, so it is part of the digest and is versioned with them. It is read strictly: it would
otherwise be a way to slip any field past the gateway's own rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from adapters.errors import Findings, shown

FILE = "graftline.json"
FILE_BYTES_MAX = 256 << 10
SYSTEM_BYTES_MAX = 64 << 10
STOPS_MAX = 16
STOP_CHARS_MAX = 256

_ADVICE = "Take it out, or register with --system-file, --sampling and --stop, which write the file."


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Which numbers a sampling default may be; `low` itself only where it is `closed`."""

    low: float
    high: float
    whole: bool = False
    closed: bool = True

    def holds(self, value: Any) -> bool:
        """Whether `value` is such a number. True and false are no numbers, nor are NaN and infinity."""
        if type(value) is not int and (self.whole or type(value) is not float):
            return False
        return (self.low <= value if self.closed else self.low < value) and bool(value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        lowest = f"from {self.low:g}" if self.closed else f"above {self.low:g}"
        return f"{kind} {lowest} to {self.high:g}"


#: What may be set beneath the client's own values, in bounds that the engine takes too.
SAMPLING: Mapping[str, Range] = {
    "temperature": Range(low=0, high=2),
    "top_p": Range(low=0, high=1, closed=False),
    "top_k": Range(low=-1, high=1 << 20, whole=True),
    "min_p": Range(low=0, high=1),
    "frequency_penalty": Range(low=-2, high=2),
    "presence_penalty": Range(low=-2, high=2),
    "repetition_penalty": Range(low=0.01, high=10),
    "max_tokens": Range(low=1, high=1 << 20, whole=True),
    "seed": Range(low=-(1 << 63), high=(1 << 63) - 1, whole=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Defaults beneath the client's own values. Empty fields carry nothing."""

    system: str = ""
    sampling: Mapping[str, float | int] = field(default_factory=dict, hash=False)
    stop: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.system or self.sampling or self.stop)

    def document(self) -> dict[str, Any]:
        """As JSON, without what is empty: the content of the file, of a row and of an answer."""
        found: dict[str, Any] = {}
        if self.system:
            found["system"] = self.system
        if self.sampling:
            found["sampling"] = dict(self.sampling)
        if self.stop:
            found["stop"] = list(self.stop)
        return found

    @classmethod
    def from_document(cls, found: Mapping[str, Any]) -> Carried:
        """The value again from what `document` made; for our own rows, not for strangers' files."""
        return cls(
            system=found.get("system", ""),
            sampling=dict(found.get("sampling", {})),
            stop=tuple(found.get("stop", ())),
        )


def read_carried(folder: Path, findings: Findings) -> Carried:
    """Read the folder's `graftline.json`; nothing carried where there is none. What is wrong goes to `findings`."""
    path = folder / FILE
    if not path.is_file():
        return Carried()
    if (size := path.stat().st_size) > FILE_BYTES_MAX:
        findings.add("too_large", FILE, f"{size} bytes", f"{FILE_BYTES_MAX} bytes", "Carry a shorter system prompt.")
        return Carried()
    try:
        fields = json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        findings.add("bad_carried", FILE, str(error), "one JSON object", _ADVICE)
        return Carried()
    return checked(fields, findings)


def checked(fields: Any, findings: Findings) -> Carried:
    """The value in a stranger's document; what is wrong goes to `findings`."""
    if not isinstance(fields, dict):
        findings.add("bad_carried", FILE, type(fields).__name__, "one JSON object", _ADVICE)
        return Carried()
    for name in (name for name in fields if name not in ("system", "sampling", "stop")):
        findings.add("unknown_field", f"{FILE}: {name}", fields[name], "system, sampling and stop", _ADVICE)
    return Carried(
        system=_system(fields.get("system", ""), findings),
        sampling=_sampling(fields.get("sampling", {}), findings),
        stop=_stop(fields.get("stop", []), findings),
    )


def _system(value: Any, findings: Findings) -> str:
    if not _is_text(value) or len(value.encode()) > SYSTEM_BYTES_MAX:
        allowed = f"text of at most {SYSTEM_BYTES_MAX} bytes in UTF-8"
        findings.add("bad_value", f"{FILE}: system", value, allowed, "It stands before every conversation.")
        return ""
    return str(value)


def _sampling(value: Any, findings: Findings) -> dict[str, float | int]:
    if not isinstance(value, dict):
        findings.add("bad_value", f"{FILE}: sampling", value, "a map from names to numbers", _ADVICE)
        return {}
    good: dict[str, float | int] = {}
    for name, number in value.items():
        spot = f"{FILE}: sampling[{shown(name)}]"
        if name not in SAMPLING:
            findings.add("unknown_field", spot, number, ", ".join(SAMPLING), _ADVICE)
        elif not SAMPLING[name].holds(number):
            findings.add("bad_value", spot, number, str(SAMPLING[name]), "The engine would refuse every request.")
        else:
            good[name] = number
    return good


def _stop(value: Any, findings: Findings) -> tuple[str, ...]:
    good = isinstance(value, list) and len(value) <= STOPS_MAX
    if not good or not all(_is_text(text) and 0 < len(text) <= STOP_CHARS_MAX for text in value):
        allowed = f"at most {STOPS_MAX} strings of 1 to {STOP_CHARS_MAX} characters"
        findings.add("bad_value", f"{FILE}: stop", value, allowed, _ADVICE)
        return ()
    return tuple(value)


def _is_text(value: Any) -> bool:
    """Whether it is text that can be sent: JSON may spell half a character, which UTF-8 cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands in it twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
