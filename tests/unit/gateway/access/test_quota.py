from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access import quota
from gateway.access.errors import BudgetSpent, OverQuota, RequestTooLarge
from gateway.access.keys import Limits
from gateway.access.quota import EMPTY, Slot, Usage

ELAPSED = st.floats(0, 59.999)
LIMIT = st.integers(1, 10**6)
COUNT = st.integers(0, 2 * 10**6)


def used(
    requests: int = 0,
    requests_before: int = 0,
    tokens: int = 0,
    tokens_before: int = 0,
    running: int = 0,
    held: int = 0,
    spent: int = 0,
) -> Usage:
    return (requests, requests_before, tokens, tokens_before, running, held, spent)


def refusal(limits: Limits, usage: Usage, asked: int = 0, elapsed_s: float = 0.0) -> OverQuota:
    found = quota.exceeded(limits, usage, asked, elapsed_s)
    assert found is not None
    return found


SLOT: Slot = (10, 3, 4, 30, 40, 2, 50, 600)


def test_a_slot_stands_still_within_its_window() -> None:
    assert quota.rolled(SLOT, 10) == SLOT


def test_the_window_that_ends_becomes_the_one_before() -> None:
    assert quota.rolled(SLOT, 11) == (11, 0, 3, 0, 30, 2, 50, 600)


@pytest.mark.parametrize("window", [12, 1000, 9, 0])
def test_older_windows_are_forgotten_and_so_are_later_ones_from_before_a_reboot(window: int) -> None:
    assert quota.rolled(SLOT, window) == (window, 0, 0, 0, 0, 2, 50, 600)


def test_a_request_is_counted_where_it_began() -> None:
    slot = quota.reserved(EMPTY, 10, 100)
    assert slot == (10, 1, 0, 100, 0, 1, 100, 0)
    assert quota.settled(slot, 10, 10, 100, 30, 1) == (10, 1, 0, 30, 0, 0, 0, 30)
    assert quota.settled(slot, 11, 10, 100, 30, 1) == (11, 0, 1, 0, 30, 0, 0, 30)
    assert quota.settled(slot, 12, 10, 100, 30, 1) == (12, 0, 0, 0, 0, 0, 0, 30)


def test_a_request_that_never_was_leaves_no_count() -> None:
    slot = quota.reserved(EMPTY, 10, 100)
    assert quota.settled(slot, 10, 10, 100, 0, 0)[1:] == EMPTY[1:]
    assert quota.settled(slot, 11, 10, 100, 0, 0)[1:] == EMPTY[1:]


def test_an_answer_longer_than_reserved_counts_in_full() -> None:
    slot = quota.settled(quota.reserved(EMPTY, 10, 100), 10, 10, 100, 130, 1)
    assert quota.total(slot, 10) == used(requests=1, tokens=130, spent=130)


def test_a_row_is_the_sum_of_its_slots_each_in_its_own_window() -> None:
    row = (*SLOT, *(9, 5, 6, 70, 80, 1, 2, 3), *(8, 9, 9, 9, 9, 1, 1, 1), *(11, 9, 9, 9, 9, 0, 0, 0))
    assert quota.total(row, 10) == used(3, 4 + 5, 30, 40 + 70, 2 + 1 + 1, 50 + 2 + 1, 600 + 3 + 1)


def test_folding_keeps_what_was_used_and_drops_what_was_running() -> None:
    row = (*SLOT, *(9, 5, 6, 70, 80, 1, 2, 3))
    assert quota.folded(row, 10) == (10, 3, 9, 30, 110, 0, 0, 603)


def test_nothing_is_refused_within_the_limits() -> None:
    limits = Limits(requests_per_min=5, tokens_per_min=100, concurrent=2, token_budget=1000)
    assert quota.exceeded(limits, used(5, 0, 100, 0, 2, 100, 900), 100, 0.0) is None
    assert quota.exceeded(Limits(), used(10**9, 10**9, 10**9, 10**9, 10**9, 10**9, 10**9), 10**9, 0.0) is None


def test_one_request_too_many_is_told_when_to_come_back() -> None:
    found = refusal(Limits(requests_per_min=6), used(requests=7), elapsed_s=45)
    assert (found.reason, found.limit, found.remaining, found.code) == ("requests", 6, 0, "rate_limit_exceeded")
    assert found.retry_after_s == 15 + 10  # the window ends, and then the first of six fades within ten seconds


def test_the_window_before_counts_by_what_is_left_of_it() -> None:
    limits = Limits(requests_per_min=60)
    assert quota.exceeded(limits, used(requests=31, requests_before=60), 0, 31.0) is None
    assert refusal(limits, used(requests=31, requests_before=60), elapsed_s=30.0).retry_after_s == pytest.approx(1)


def test_tokens_are_refused_like_requests() -> None:
    found = refusal(Limits(tokens_per_min=100), used(tokens=130), asked=40)
    assert (found.reason, found.requested, found.remaining, found.retryable) == ("tokens", 40, 10, True)
    assert "max_tokens" in str(found)


def test_a_request_larger_than_the_minute_never_fits() -> None:
    found = refusal(Limits(tokens_per_min=100), used(tokens=101), asked=101)
    assert isinstance(found, RequestTooLarge)
    assert (found.retry_after_s, found.retryable, found.code) == (None, False, "request_over_limit")


def test_a_place_among_the_running_may_be_free_soon() -> None:
    found = refusal(Limits(concurrent=2), used(running=3))
    assert (found.reason, found.retry_after_s, found.retryable) == ("concurrent", quota.RUNNING_RETRY_S, True)


def test_a_spent_budget_does_not_come_back() -> None:
    found = refusal(Limits(token_budget=100), used(held=20, spent=90), asked=20)
    assert isinstance(found, BudgetSpent)
    assert (found.code, found.retryable, found.remaining) == ("insufficient_quota", False, 10)


def test_a_budget_held_by_running_requests_may_come_back() -> None:
    found = refusal(Limits(token_budget=100), used(held=110), asked=20)
    assert not isinstance(found, BudgetSpent)
    assert (found.reason, found.retryable, found.remaining) == ("reserved", True, 10)


def test_of_two_reasons_the_more_lasting_one_is_said() -> None:
    limits = Limits(requests_per_min=1, tokens_per_min=100, concurrent=1, token_budget=10)
    both = used(requests=2, tokens=50, running=2)
    assert refusal(limits, both).reason == "requests"
    assert refusal(limits, used(requests=2, tokens=150, held=50, spent=5, running=2), asked=50).reason == "budget"
    assert refusal(Limits(concurrent=1, tokens_per_min=9), used(tokens=10, running=2), asked=10).reason == "too_large"


@settings(derandomize=True, database=None)
@given(limit=LIMIT, now=COUNT, before=COUNT, elapsed_s=ELAPSED, want=LIMIT)
def test_who_waits_as_told_gets_in_and_who_waits_less_does_not(
    limit: int, now: int, before: int, elapsed_s: float, want: int
) -> None:
    want = min(want, limit)
    limits = Limits(tokens_per_min=limit)
    wait = quota.wait_s(limit, now, before, want, elapsed_s)
    assert 0 <= wait <= 2 * quota.WINDOW_S

    def fits_after(s: float) -> bool:
        at = elapsed_s + s
        slot = quota.reserved(
            quota.rolled((100, 0, 0, now, before, 0, 0, 0), 100 + int(at // 60)), 100 + int(at // 60), want
        )
        return quota.exceeded(limits, quota.total(slot, slot[0]), want, at % 60) is None

    assert fits_after(wait + 1e-3)
    if wait > 1e-3:
        assert not fits_after(wait - 1e-3)


@settings(derandomize=True, database=None)
@given(limit=st.integers(1, 50), gaps=st.lists(st.floats(0, 20), max_size=200))
def test_no_more_than_twice_the_limit_passes_in_any_minute(limit: int, gaps: list[float]) -> None:
    limits = Limits(requests_per_min=limit)
    slot, now, passed = EMPTY, 0.0, list[float]()
    for gap in gaps:
        now += gap
        window = int(now // 60)
        asked = quota.reserved(slot, window, 0)
        if quota.exceeded(limits, quota.total(asked, window), 0, now - window * 60) is None:
            slot = quota.settled(asked, window, window, 0, 0, 1)
            passed.append(now)
    for start in passed:
        assert sum(start <= at < start + 60 for at in passed) <= 2 * limit


def test_what_is_left_is_told_with_the_time_until_all_is_back() -> None:
    limits = Limits(requests_per_min=10, tokens_per_min=100, token_budget=1000)
    left = quota.remaining(limits, used(2, 4, 0, 60, 1, 50, 100), 15.0)
    assert (left.requests_limit, left.requests, left.requests_reset_s) == (10, 5, 105)
    assert (left.tokens_limit, left.tokens, left.tokens_reset_s) == (100, 55, 45)
    assert (left.budget_limit, left.budget) == (1000, 850)


def test_nothing_is_told_of_limits_that_are_not_there() -> None:
    left = quota.remaining(Limits(concurrent=1), used(2, 4), 15.0)
    assert (left.requests_limit, left.requests, left.tokens_limit, left.tokens) == (None, None, None, None)
    assert (left.budget_limit, left.budget) == (None, None)


def test_an_unused_limit_is_all_there_now() -> None:
    left = quota.remaining(Limits(requests_per_min=10, token_budget=5), used(held=6), 15.0)
    assert (left.requests, left.requests_reset_s) == (10, 0)
    assert left.budget == 0
