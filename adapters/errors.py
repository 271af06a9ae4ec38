"""What can go wrong on this floor.

AdapterError
├── BadName            the name is not one that an adapter or an alias may have
├── NotFound           no such version, alias or artifact
├── Conflict           somebody else moved it first, or something still depends on it
├── IllegalMove        the table in lifecycle.py does not know this step
├── Rejected           the adapter failed its checks; carries every reason
├── BadWeights         the file is no safetensors file that anyone should load; checks turn it into a Reason
├── BadArchive         the archive is damaged, or holds something an adapter never needs
├── TooLarge           more bytes or more files than the limits allow
├── DigestMismatch     the bytes on disk are not the bytes that were registered
├── BadSignature       the signature is missing where one is demanded, or does not fit the bytes
├── NoSigning          a signature must be checked or made, and the library for it is not installed
├── Gone               the version was deleted: its row remains, its bytes do not
├── GateClosed         the version has not passed the evaluation that `live` asks for, and nobody overrode it
├── NoProber           nothing here can run an adapter's first forward off the shared engine
├── ProbeAway          what runs the first forward did not answer; nothing was decided
├── BadSource          the source cannot be understood, or there is no adapter there
├── SourceRefused      the operator's settings do not allow this source
├── SourceUnavailable  what keeps the adapter did not answer, or took too long
│   └── HubOffline     this process was told to stay off the hub
├── BadExport          the place cannot take an exported adapter
├── MissingExtra       a package that only some installations need is not installed; names the extra
├── BadBase            the base folder cannot be read, or uses a layout that cannot be served with adapters
└── Unavailable        the database or the disk did not answer; nothing was decided

`code` is public and stable. `retryable` says whether the same call may succeed later without a change by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


class AdapterError(Exception):
    """Anything that this floor refuses or fails at."""

    code: ClassVar[str] = "adapter_error"
    retryable: ClassVar[bool] = False


class BadName(AdapterError):
    code = "bad_adapter_name"


class NotFound(AdapterError):
    code = "adapter_not_found"


class Conflict(AdapterError):
    """The row is not where the caller believed; `moved_by` and `moved_at` (unix s) say who moved it last."""

    code = "adapter_conflict"

    def __init__(self, message: str, *, moved_by: str = "", moved_at: float | None = None) -> None:
        super().__init__(message)
        self.moved_by = moved_by
        self.moved_at = moved_at


class IllegalMove(AdapterError):
    code = "illegal_adapter_move"


class BadWeights(AdapterError):
    code = "bad_safetensors"


class BadArchive(AdapterError):
    code = "bad_archive"


class TooLarge(AdapterError):
    code = "adapter_too_large"


class DigestMismatch(AdapterError):
    code = "digest_mismatch"


class BadBase(AdapterError):
    code = "bad_base"


class BadSignature(AdapterError):
    code = "bad_signature"


class NoSigning(AdapterError):
    code = "no_signing"


class Gone(AdapterError):
    code = "adapter_deleted"


class GateClosed(AdapterError):
    code = "gate_closed"


class NoProber(AdapterError):
    code = "no_prober"


class ProbeAway(AdapterError):
    code = "probe_away"
    retryable = True


class BadSource(AdapterError):
    code = "bad_source"
    param: ClassVar[str] = "source"


class SourceRefused(AdapterError):
    code = "source_refused"
    param: ClassVar[str] = "source"


class SourceUnavailable(AdapterError):
    code = "source_unavailable"
    retryable = True
    param: ClassVar[str] = "source"


class HubOffline(SourceUnavailable):
    code = "hub_offline"
    retryable = False


class BadExport(AdapterError):
    code = "bad_export"


class MissingExtra(AdapterError):
    code = "missing_extra"


class Unavailable(AdapterError):
    code = "registry_unavailable"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that is wrong with an adapter: where, what was found, what is allowed, and what to do."""

    code: str
    field: str
    found: str
    allowed: str
    advice: str

    def __str__(self) -> str:
        return f"{self.field}: found {self.found}; allowed: {self.allowed}. {self.advice}"

    def document(self) -> dict[str, Any]:
        """The reason as JSON for an error body or a row."""
        return asdict(self)


class Rejected(AdapterError):
    """The adapter may not serve. `reasons` holds everything found in one pass, so that one repair is enough."""

    code = "adapter_rejected"

    def __init__(self, reasons: Iterable[Reason]) -> None:
        self.reasons = tuple(reasons)
        listed = "\n".join(f"- {reason}" for reason in self.reasons)
        count = "1 reason" if len(self.reasons) == 1 else f"{len(self.reasons)} reasons"
        super().__init__(f"The adapter was refused for {count}:\n{listed}")


class Findings:
    """Collects reasons; a thousand bad tensors become a few examples of each kind and a count."""

    examples_max = 5

    def __init__(self) -> None:
        self._reasons: dict[str, list[Reason]] = {}
        self._more: dict[str, int] = {}

    def add(self, code: str, field: str, found: object, allowed: str, advice: str) -> None:
        """Note one reason. `found` comes from a stranger: it is escaped and cut short."""
        reason = Reason(code=code, field=shown(field, quote=False), found=shown(found), allowed=allowed, advice=advice)
        kept = self._reasons.setdefault(code, [])
        if len(kept) < self.examples_max:
            kept.append(reason)
        else:
            self._more[code] = self._more.get(code, 0) + 1

    def has(self, *codes: str) -> bool:
        """Whether any reason of these codes was found."""
        return any(code in self._reasons for code in codes)

    def reasons(self) -> tuple[Reason, ...]:
        """Everything found, kinds in the order in which they first appeared."""
        found: list[Reason] = []
        for code, kept in self._reasons.items():
            found += kept
            if more := self._more.get(code):
                last = kept[-1]
                found.append(
                    Reason(
                        code=code, field="…", found=f"{more} more like these", allowed=last.allowed, advice=last.advice
                    )
                )
        return tuple(found)

    def done(self) -> None:
        """Raise what was found, if anything was."""
        if self._reasons:
            raise Rejected(self.reasons())


def shown(value: object, *, quote: bool = True, length_max: int = 120) -> str:
    """Text from a stranger made safe to print: control characters escaped, cut at `length_max` characters."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= length_max else text[: length_max - 1] + "…"
    if isinstance(value, str) and (quote or not cut.isprintable()):
        return repr(cut)
    return cut if cut.isprintable() else repr(cut)
