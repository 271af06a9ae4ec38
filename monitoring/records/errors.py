"""What can go wrong with records.

RecordsError
├── BadRecord    a line or an event cannot be stored, now or later
├── NotFound     no such record
├── SpoolFull    the spool's disk refused a write; what did get in is counted
├── SpoolBroken  a spool file cannot be read or removed; the other files were moved
└── StoreAway    the database cannot be reached or refused to write
"""

from __future__ import annotations

from typing import ClassVar


class RecordsError(Exception):
    """Anything this room raises on purpose.

    `code` is stable and public; `retryable` says whether the same call may work later.
    """

    code: ClassVar[str] = "records_error"
    retryable: ClassVar[bool] = False


class BadRecord(RecordsError):
    """A line or an event cannot be stored, now or later."""

    code = "bad_record"


class NotFound(RecordsError):
    """No such record."""

    code = "record_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"No record {key!r}. It may not have been recorded yet (try again in a few seconds), "
            "belong to another tenant, or have been dropped with its month."
        )


class SpoolFull(RecordsError):
    """The spool's disk refused a write. The first `written` lines of the call are in, the others are not."""

    code = "spool_full"
    retryable = True

    def __init__(self, problem: OSError, *, written: int, lines: int) -> None:
        super().__init__(
            f"The spool took {written} of {lines} lines, then failed: {problem}. "
            "Free space on its disk; append the other lines again."
        )
        self.written = written


class SpoolBroken(RecordsError):
    """A spool file cannot be read or removed; the other files were moved all the same."""

    code = "spool_broken"
    retryable = True


class StoreAway(RecordsError):
    """The database cannot be reached or refused to write; the records wait in the spool."""

    code = "store_away"
    retryable = True
