"""What can go wrong between a caller and their request.

AccessError
├── Unauthenticated       no key, or none that we can accept
├── Forbidden             a good key, without the right
│   └── ModelNotAllowed   a good key, for other models
├── OverQuota             too much for now; says when to come back
│   ├── RequestTooLarge   more than the key may ever ask for at once
│   └── BudgetSpent       nothing left, and time does not help
├── KeyNotFound           no key of that id
├── BadKey                a key that may not be made
├── KeysUnavailable       the database that keys are in did not answer
└── LedgerError           the quota file
    ├── LedgerInUse       another process holds this place in it
    ├── LedgerCorrupt     the file is not ours, or damaged
    └── LedgerUnavailable the file cannot grow, so a quota cannot be kept
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class AccessError(Exception):
    """Something about who is asking, or how much."""

    code: ClassVar[str] = "access_error"
    retryable: ClassVar[bool] = False


class Unauthenticated(AccessError):
    """One message for every key that we do not know or no longer accept, so that nobody learns which it was."""

    code = "invalid_api_key"

    @classmethod
    def missing(cls) -> Unauthenticated:
        return cls("No API key was sent. Send one as 'Authorization: Bearer gl-…'; an operator can make one for you.")

    @classmethod
    def rejected(cls) -> Unauthenticated:
        return cls("The API key is not valid. Check that it was copied whole, or ask an operator for a new one.")

    @classmethod
    def expired(cls) -> Unauthenticated:
        return cls("The API key has expired. Ask an operator for a new one.")


class Forbidden(AccessError):
    """The key is good, but has not the role that this needs."""

    code = "permission_denied"

    def __init__(self, have: Sequence[str], need: Sequence[str]) -> None:
        super().__init__(
            f"This needs the role {' or '.join(need)}; the key has {', '.join(have) or 'none'}. "
            "Ask an operator for a key with that role."
        )


class OverQuota(AccessError):
    """A limit of the key is reached.

    `reason` is one of "requests", "tokens" (a minute), "concurrent", "too_large", "budget", and "reserved": running
    requests hold what is left of the budget. `retry_after_s` is the shortest wait after which the same request fits
    if nothing else is sent, or None when waiting does not help.
    """

    code = "rate_limit_exceeded"
    retryable = True

    def __init__(
        self, reason: str, *, limit: int, used: int, requested: int, retry_after_s: float | None = None
    ) -> None:
        super().__init__(
            _QUOTA_TEXT[reason].format(limit=limit, used=used, requested=requested) + _advice(retry_after_s)
        )
        self.reason = reason
        self.limit = limit
        self.remaining = max(0, limit - used)
        self.requested = requested
        self.retry_after_s = retry_after_s


class RequestTooLarge(OverQuota):
    """One request asks for more than the key's limit: it never fits, however long one waits."""

    code = "request_over_limit"
    retryable = False


class BudgetSpent(OverQuota):
    """The key's token budget is used up, or what is left is less than this request may use."""

    code = "insufficient_quota"
    retryable = False


class KeyNotFound(AccessError):
    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"There is no key {key_id!r}. 'graftline keys list' shows those there are.")


class BadKey(AccessError):
    """A key was asked for that may not be made; all that is wrong with it is said together."""

    code = "bad_key"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = tuple(problems)


class KeysUnavailable(AccessError):
    code = "keys_unavailable"
    retryable = True

    def __init__(self) -> None:
        super().__init__("The database that keys are kept in did not answer. Nothing was changed; try again later.")


class LedgerError(AccessError):
    """The file that quotas are counted in cannot be used."""

    code = "quota_unavailable"


class LedgerInUse(LedgerError):
    code = "quota_ledger_in_use"
    retryable = True

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{what} of the quota ledger {path} is held by another process. Stop the other gateway first.")


class LedgerCorrupt(LedgerError):
    code = "quota_ledger_corrupt"

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"{path} is not a usable quota ledger: {found}. Move it away to start anew; "
            "spent token budgets then count from zero."
        )


class LedgerUnavailable(LedgerError):
    retryable = True

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"The quota ledger {path} cannot be extended: {why}. Free some disk space.")


_QUOTA_TEXT = {
    "requests": "The key's limit of {limit} requests a minute is reached ({used} counted).",
    "tokens": (
        "The key's limit of {limit} tokens a minute is reached ({used} counted, {requested} more asked for). "
        "A smaller max_tokens reserves less."
    ),
    "concurrent": "The key's limit of {limit} requests at a time is reached ({used} running).",
    "too_large": (
        "This request may use {requested} tokens; the key may use {limit} a minute. "
        "Ask for fewer with max_tokens, or shorten the prompt."
    ),
    "reserved": (
        "The key's budget of {limit} tokens is used or held by running requests ({used}), "
        "too much for the {requested} more asked for."
    ),
    "budget": (
        "The key's budget of {limit} tokens does not cover this request ({used} used, {requested} more asked for). "
        "Ask for fewer with max_tokens, or ask an operator for a key with a new budget."
    ),
}


def _advice(retry_after_s: float | None) -> str:
    return "" if retry_after_s is None else f" Try again in {retry_after_s:.1f} s."
