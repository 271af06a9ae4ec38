"""What the operator allows, and how much may arrive. The decisions are pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from adapters.errors import SourceRefused, SourceUnavailable, TooLarge, shown
from adapters.limits import Limits
from adapters.sources.spelling import Web

#: (bytes so far, bytes in all or None where nobody said)
Progress = Callable[[int, int | None], None]


def no_progress(done: int, total: int | None) -> None:
    """For callers who do not look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRules:
    """Which sources may be named, and within which bounds.

    `folders` and `buckets`: None allows any, which only a person at this machine may say. A host on `hosts` is
    `models.example` (ports 80 and 443), `models.example:8443` or `*.example`; only one that is spelt out may have an
    address that is not public.
    """

    folders: tuple[Path, ...] | None = ()
    hosts: tuple[str, ...] = ()
    buckets: tuple[str, ...] | None = ()
    hub_endpoint: str = "https://huggingface.co"
    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 600.0
    scratch: Path | None = None


def folder_allowed(path: Path, rules: SourceRules) -> None:
    """Raises SourceRefused unless the path lies below an allowed folder, links followed."""
    if rules.folders is None:
        return
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # too long a name, a ring of links: below no folder
        real = Path()
    if not path.is_absolute() or not any(real.is_relative_to(root.resolve()) for root in rules.folders):
        raise SourceRefused(
            f"The source {shown(str(path))} is not below a folder on this gateway's list (`source_folders`). "
            "Upload an archive, or register on the server with `graftline adapters register`."
        )


def bucket_allowed(bucket: str, rules: SourceRules) -> None:
    """Raises SourceRefused unless the bucket is on the list: this process may be able to read more than its callers."""
    if rules.buckets is not None and bucket not in rules.buckets:
        raise SourceRefused(
            f"The bucket {shown(bucket)} is not on this gateway's list (`source_buckets`). "
            "Upload an archive, or ask an operator to add it."
        )


def host_allowed(web: Web, rules: SourceRules) -> bool:
    """Whether the host was spelt out on the list, and may have any address. Raises SourceRefused when it is not on it
    at all."""
    usual = web.port == (443 if web.scheme == "https" else 80)
    spellings = {f"{web.host}:{web.port}"} | ({web.host} if usual else set())
    if spellings & {entry.lower() for entry in rules.hosts}:
        return True
    wild = {entry.lower()[1:] for entry in rules.hosts if entry.startswith("*.")}
    if any(spelling.endswith(tail) for spelling in spellings for tail in wild):
        return False
    raise SourceRefused(
        f"The host {shown(f'{web.host}:{web.port}')} is not on this gateway's list (`source_hosts`). "
        "Upload an archive, or ask an operator to add the host."
    )


class Meter:
    """Counts what arrives, against the bound on bytes and the bound on time."""

    def __init__(
        self,
        rules: SourceRules,
        progress: Progress,
        *,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bytes_max = rules.limits.bytes_max
        self._timeout_s = rules.timeout_s
        self._until = clock() + rules.timeout_s
        self._clock = clock
        self._progress = progress
        self._done = 0
        self._total: int | None = None
        self.expect(total)

    def expect(self, total: int | None) -> None:
        """What is said to come; a claim that is too large is refused before a byte is read."""
        if total is not None and total > self._bytes_max:
            raise TooLarge(f"The source holds {total} bytes; {self._bytes_max} are allowed. Send the adapter alone.")
        self._total = total

    @property
    def left_s(self) -> float:
        """How much time is left."""
        return max(0.0, self._until - self._clock())

    def count(self, size: int) -> None:
        """So many bytes more. Raises TooLarge, and SourceUnavailable when the time is over."""
        self._done += size
        if self._done > self._bytes_max:
            raise TooLarge(f"The source holds more than the {self._bytes_max} bytes that are allowed.")
        if self._clock() > self._until:
            raise SourceUnavailable(
                f"The source sent {self._done} bytes in {self._timeout_s:g} s and was not done. Try again, raise "
                "`source_timeout_s`, or upload an archive."
            )
        self._progress(self._done, self._total)
