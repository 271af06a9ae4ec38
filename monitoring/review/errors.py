"""What can go wrong with reviews.

ReviewError
├── BadPick            the wish names nothing that can be picked
├── BadAnswer          the answer does not fit its task; carries every reason
├── BadImport          the file is not Label Studio's JSON of our tasks; carries every reason
├── TaskNotFound       no such task in this tenant, or its record is gone
├── ClaimLost          the claim is over, and others have the task now; or there never was one
├── AlreadyAnswered    this reviewer has answered, or passed over, this task before
└── ReviewUnavailable  the database did not answer; nothing changed
"""

from __future__ import annotations

from collections.abc import Iterable

from monitoring.records.errors import RecordsError

_SHOWN_MAX = 20


class ReviewError(RecordsError):
    """Anything that this room refuses."""

    code = "review_error"


class BadPick(ReviewError):
    code = "bad_pick"


class BadAnswer(ReviewError):
    """`reasons` holds everything that was found in one pass."""

    code = "bad_answer"

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("This answer does not fit its task: " + "; ".join(self.reasons))


class BadImport(ReviewError):
    """`reasons` holds everything that was found in one pass; nothing was imported."""

    code = "bad_import"

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        lines = [f"- {reason}" for reason in self.reasons[:_SHOWN_MAX]]
        if len(self.reasons) > _SHOWN_MAX:
            lines.append(f"- and {len(self.reasons) - _SHOWN_MAX} more")
        super().__init__("Nothing was imported from this file:\n" + "\n".join(lines))


class TaskNotFound(ReviewError):
    code = "review_task_not_found"

    def __init__(self, task: str) -> None:
        super().__init__(
            f"There is no review task {task[:100]!r} here; its record may have been dropped. `graftline review list` "
            "shows those there are."
        )


class ClaimLost(ReviewError):
    code = "claim_lost"

    def __init__(self, task: str, reviewer: str) -> None:
        super().__init__(
            f"{reviewer[:100]!r} does not hold task {task[:100]!r}: it was never claimed, or the claim ran out and as "
            "many others as it needs have it now. Ask for the next one."
        )


class AlreadyAnswered(ReviewError):
    code = "already_answered"

    def __init__(self, task: str, reviewer: str) -> None:
        super().__init__(
            f"{reviewer[:100]!r} is done with task {task[:100]!r}. Nobody gets a task twice; to change what was said, "
            "send feedback on the answer itself."
        )


class ReviewUnavailable(ReviewError):
    code = "review_unavailable"
    retryable = True
