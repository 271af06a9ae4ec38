"""The arithmetic of quotas. Pure: slots and numbers in, slots and decisions out; the ledger does the memory.

Each worker counts each key in a slot of its own, and what a key has used is the sum over the slots. A minute slides as
the weighted sum of two fixed windows: what stands in the current one, and of the one before it the share that is less
than a minute old if it came evenly. So no more than twice a limit passes in any 60 s, and its rate on average: what a
token bucket of one minute's burst gives, without a shared level that two workers would have to write.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.access.errors import BudgetSpent, OverQuota, RequestTooLarge
from gateway.access.keys import Limits

WINDOW_S: Final = 60
#: When a running request ends cannot be known; this is the pause that is suggested.
RUNNING_RETRY_S: Final = 1.0

#: One worker's count of one key, as it lies in the ledger: window, requests in it, requests in the one before, tokens
#: in it, tokens in the one before, running requests, tokens they hold of the budget, tokens spent of the budget.
Slot: TypeAlias = tuple[int, int, int, int, int, int, int, int]
SLOT_FIELDS: Final = 8
EMPTY: Final[Slot] = (0, 0, 0, 0, 0, 0, 0, 0)


#: What a key has used, all workers together: a slot's fields without the window. Plain tuples, for the request path.
Usage: TypeAlias = tuple[int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What is left to a key; None where it has no such limit. `reset` is when the whole limit is there again."""

    requests_limit: int | None
    requests: int | None
    requests_reset_s: float
    tokens_limit: int | None
    tokens: int | None
    tokens_reset_s: float
    budget_limit: int | None
    budget: int | None


def rolled(slot: Slot, window: int) -> Slot:
    """The slot, moved on to `window`. A slot from a later window is from before a reboot and counts as old."""
    then, requests, _, tokens, _, running, held, spent = slot
    if then == window:
        return slot
    if then == window - 1:
        return (window, 0, requests, 0, tokens, running, held, spent)
    return (window, 0, 0, 0, 0, running, held, spent)


def reserved(slot: Slot, window: int, tokens: int) -> Slot:
    """The slot, with one more request that may use `tokens`."""
    _, requests, requests_before, now, before, running, held, spent = rolled(slot, window)
    return (window, requests + 1, requests_before, now + tokens, before, running + 1, held + tokens, spent)


def settled(slot: Slot, window: int, began: int, held: int, used: int, kept: int) -> Slot:
    """The slot, after a request that began in window `began` and held tokens used `used` of them.

    `kept` is 1, or 0 to forget the request itself too. Tokens count where they were reserved, so that a long answer
    does not weigh twice.
    """
    _, requests, requests_before, now, before, running, holding, spent = rolled(slot, window)
    if began == window:
        requests -= 1 - kept
        now += used - held
    elif began == window - 1:
        requests_before -= 1 - kept
        before += used - held
    return (window, requests, requests_before, now, before, running - 1, holding - held, spent + used)


def total(row: tuple[int, ...], window: int) -> Usage:
    """What a key has used: the sum over its row, which is every worker's slot one after the other."""
    requests = requests_before = tokens = tokens_before = running = held = spent = 0
    for at in range(0, len(row), SLOT_FIELDS):
        then, a, b, c, d, e, f, g = row[at : at + SLOT_FIELDS]
        if then == window:
            requests += a
            requests_before += b
            tokens += c
            tokens_before += d
        elif then == window - 1:
            requests_before += a
            tokens_before += c
        running += e
        held += f
        spent += g
    return (requests, requests_before, tokens, tokens_before, running, held, spent)


def folded(row: tuple[int, ...], window: int) -> Slot:
    """One slot in place of a key's whole row, for when the number of workers changes. Nothing is running then."""
    requests, requests_before, tokens, tokens_before, _, _, spent = total(row, window)
    return (window, requests, requests_before, tokens, tokens_before, 0, 0, spent)


def exceeded(limits: Limits, usage: Usage, asked: int, elapsed_s: float) -> OverQuota | None:
    """Whether `usage`, in which the request and the tokens it asked for are already counted, is over the limits.

    `elapsed_s` is how far into the window we are. What no waiting helps is said first, then what takes longest.
    """
    requests, requests_before, tokens, tokens_before, running, held, spent = usage
    left = 1 - elapsed_s / WINDOW_S
    refusals: list[OverQuota] = []
    limit = limits.requests_per_min
    if limit is not None and requests + requests_before * left > limit:
        refusals.append(_minute("requests", limit, requests - 1, requests_before, 1, elapsed_s))
    limit = limits.tokens_per_min
    if limit is not None and tokens + tokens_before * left > limit:
        refusals.append(_minute("tokens", limit, tokens - asked, tokens_before, asked, elapsed_s))
    limit = limits.concurrent
    if limit is not None and running > limit:
        refusals.append(_later("concurrent", limit, running - 1, 1, RUNNING_RETRY_S))
    limit = limits.token_budget
    if limit is not None and spent + held > limit:
        refusals.append(_budget(limit, spent, held, asked))
    return max(refusals, key=_patience) if refusals else None


def wait_s(limit: int, now: int, before: int, want: int, elapsed_s: float) -> float:
    """The shortest wait until `want` more fit, if nothing else comes. `want` is at most `limit`.

    `now` and `before` are what is counted in this window and the one before it.
    """
    if now + want <= limit:
        return max(0.0, _fades_at(limit - now - want, before) - elapsed_s)
    return WINDOW_S - elapsed_s + _fades_at(limit - want, now)


def remaining(limits: Limits, usage: Usage, elapsed_s: float) -> Remaining:
    """What `limits` leave, for the rate-limit headers of an answer."""
    _requests, _requests_before, _tokens, _tokens_before, _, held, spent = usage
    requests, requests_reset_s = _left(limits.requests_per_min, _requests, _requests_before, elapsed_s)
    tokens, tokens_reset_s = _left(limits.tokens_per_min, _tokens, _tokens_before, elapsed_s)
    budget = limits.token_budget
    return Remaining(
        requests_limit=limits.requests_per_min,
        requests=requests,
        requests_reset_s=requests_reset_s,
        tokens_limit=limits.tokens_per_min,
        tokens=tokens,
        tokens_reset_s=tokens_reset_s,
        budget_limit=budget,
        budget=None if budget is None else max(0, budget - spent - held),
    )


def _left(limit: int | None, now: int, before: int, elapsed_s: float) -> tuple[int | None, float]:
    if limit is None:
        return None, 0.0
    used = now + before * (WINDOW_S - elapsed_s) / WINDOW_S
    reset_s = (2 * WINDOW_S if now else WINDOW_S if before else elapsed_s) - elapsed_s
    return max(0, math.floor(limit - used)), reset_s


def _fades_at(room: int, before: int) -> float:
    """Seconds into a window at which `before`, fading evenly to nothing at its end, is down to `room`."""
    return 0.0 if before <= room else WINDOW_S * (1 - room / before)


def _budget(limit: int, spent: int, held: int, asked: int) -> OverQuota:
    if spent + asked > limit:
        return BudgetSpent("budget", limit=limit, used=spent, requested=asked)
    # It fits once those running have given back what they do not use.
    return _later("reserved", limit, spent + held - asked, asked, RUNNING_RETRY_S)


def _minute(reason: str, limit: int, now: int, before: int, want: int, elapsed_s: float) -> OverQuota:
    if want > limit:
        return RequestTooLarge("too_large", limit=limit, used=0, requested=want)
    used = math.ceil(now + before * (1 - elapsed_s / WINDOW_S))
    return _later(reason, limit, used, want, wait_s(limit, now, before, want, elapsed_s))


def _later(reason: str, limit: int, used: int, want: int, retry_after_s: float) -> OverQuota:
    return OverQuota(reason, limit=limit, used=used, requested=want, retry_after_s=retry_after_s)


def _patience(refusal: OverQuota) -> float:
    return math.inf if refusal.retry_after_s is None else refusal.retry_after_s
