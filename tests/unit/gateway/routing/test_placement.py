"""Which replica takes a request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import AdapterUnavailable, EngineFailed, NoCapacity
from gateway.routing.placement import WARM_INFLIGHT, Candidate, choose

A = Candidate(name="a", healthy=True, inflight=0, inflight_max=2, names=frozenset({"x"}))
B = replace(A, name="b")


def test_the_least_loaded_is_taken_and_among_equals_the_first_by_name() -> None:
    assert choose([B, A], "") == "a"
    assert choose([replace(A, inflight=1), B], "") == "b"


def test_only_those_that_hold_the_adapter_are_asked() -> None:
    assert choose([replace(A, names=frozenset()), replace(B, inflight=1)], "x") == "b"
    assert choose([replace(A, names=frozenset())], "") == "a"


def test_none_up_is_an_engine_failure() -> None:
    with pytest.raises(EngineFailed, match="0 of 2 are up") as caught:
        choose([replace(A, healthy=False), replace(B, healthy=False)], "x")
    assert caught.value.retry_after_s == 5


def test_none_at_all_is_an_engine_failure() -> None:
    with pytest.raises(EngineFailed):
        choose([], "")


def test_none_that_holds_it_is_a_matter_of_waiting() -> None:
    with pytest.raises(AdapterUnavailable):
        choose([A, B], "y")
    with pytest.raises(AdapterUnavailable):  # the one that held it died: it will come to the other
        choose([replace(A, healthy=False), replace(B, names=frozenset())], "x", tried=["a"])


def test_a_replica_that_failed_this_request_is_not_asked_again() -> None:
    assert choose([A, replace(B, inflight=1)], "x", tried=["a"]) == "b"
    with pytest.raises(EngineFailed, match="Tried 2 of 2"):
        choose([A, B], "x", tried=["a", "b"])
    with pytest.raises(EngineFailed, match="Tried 1 of 2"):  # and nobody waits for an adapter that is not missing
        choose([A, replace(B, names=frozenset())], "x", tried=["a"])


def test_full_replicas_are_no_capacity() -> None:
    with pytest.raises(NoCapacity) as caught:
        choose([replace(A, inflight=2), replace(B, inflight=3)], "x")
    assert type(caught.value) is NoCapacity


def test_where_it_goes_at_once_comes_before_where_it_waits() -> None:
    assert choose([replace(A, ahead=2, warm=True), replace(B, ahead=1)], "x") == "b"
    assert choose([replace(A, ahead=1, warm=True), replace(B, inflight=1, free_slot=False)], "x") == "b"


def test_a_warm_slot_comes_before_a_free_one_and_that_before_somebody_elses() -> None:
    warm, free, full = replace(A, warm=True), A, replace(A, free_slot=False)
    for better, worse in ((warm, free), (free, full), (warm, full)):
        assert choose([worse, replace(better, name="b", inflight=1)], "x") == "b"


def test_a_warm_slot_is_not_worth_any_load() -> None:
    idle, busy = replace(A, inflight_max=99), replace(B, warm=True, inflight=WARM_INFLIGHT, inflight_max=99)
    assert choose([idle, busy], "x") == "b"
    assert choose([idle, replace(busy, inflight=WARM_INFLIGHT + 1)], "x") == "a"


def test_a_replica_that_is_out_is_as_good_as_down() -> None:
    assert choose([replace(A, out=True), replace(B, inflight=1)], "") == "b"
    with pytest.raises(EngineFailed):
        choose([replace(A, out=True)], "")
