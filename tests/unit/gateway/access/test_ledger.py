from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.access.errors import LedgerCorrupt, LedgerUnavailable, OverQuota
from gateway.access.keys import Key, Limits, mint
from gateway.access.layout import KEYS_MAX, SLOT
from gateway.access.ledger import Ledger

NOW = 1_000_000_020.0  # twenty seconds before a window ends
KEY = mint(tenant="acme", name="ci", roles=["user"], now=0.0)[1]


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "quota", 0, 1, clock)) as ledger:
        yield ledger


@pytest.fixture
def three(tmp_path: Path, clock: Clock) -> Iterator[list[Ledger]]:
    workers = [Ledger(tmp_path / "quota", worker, 3, clock) for worker in range(3)]
    yield workers
    for worker in workers:
        worker.close()


def limited(
    index: int = 7,
    *,
    requests_per_min: int | None = None,
    tokens_per_min: int | None = None,
    concurrent: int | None = None,
    token_budget: int | None = None,
) -> Key:
    limits = Limits(
        requests_per_min=requests_per_min,
        tokens_per_min=tokens_per_min,
        concurrent=concurrent,
        token_budget=token_budget,
    )
    return replace(KEY, index=index, limits=limits)


def refused(ledger: Ledger, key: Key, tokens: int = 1) -> str:
    with pytest.raises(OverQuota) as caught:
        ledger.reserve(key, tokens)
    return caught.value.reason


def test_a_key_without_limits_is_not_counted(ledger: Ledger) -> None:
    for _ in range(100):
        hold = ledger.reserve(KEY, 10**30)
        hold.settle(5)
        hold.release()
    assert ledger.remaining(KEY).requests is None


def test_a_key_that_was_never_stored_has_no_quota(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="never stored"):
        ledger.reserve(limited(0, concurrent=1), 1)
    with pytest.raises(ValueError, match="never stored"):
        ledger.remaining(limited(0, concurrent=1))


def test_settling_counts_what_was_used_and_gives_back_the_rest(ledger: Ledger) -> None:
    key = limited(requests_per_min=2, tokens_per_min=100, token_budget=1000, concurrent=1)
    hold = ledger.reserve(key, 80)
    assert ledger.remaining(key).tokens == 20
    assert ledger.remaining(key).budget == 920
    hold.settle(30)
    left = ledger.remaining(key)
    assert (left.requests, left.tokens, left.budget) == (1, 70, 970)


def test_releasing_counts_nothing(ledger: Ledger) -> None:
    key = limited(requests_per_min=1, tokens_per_min=100, token_budget=1000, concurrent=1)
    ledger.reserve(key, 80).release()
    left = ledger.remaining(key)
    assert (left.requests, left.tokens, left.budget) == (1, 100, 1000)


def test_a_hold_ends_once(ledger: Ledger) -> None:
    key = limited(requests_per_min=10, tokens_per_min=100, token_budget=1000, concurrent=2)
    ledger.reserve(key, 10)
    hold = ledger.reserve(key, 10)
    hold.settle(5)
    hold.settle(5)
    hold.release()
    left = ledger.remaining(key)
    assert (left.requests, left.tokens, left.budget) == (8, 85, 985)
    ledger.reserve(key, 10)
    assert refused(ledger, key) == "concurrent"


def test_a_refused_request_leaves_no_trace(three: list[Ledger]) -> None:
    key = limited(requests_per_min=1)
    three[0].reserve(key, 5).settle(5)
    for worker in three * 10:
        assert refused(worker, key) == "requests"
    assert three[1].remaining(key).requests == 0


def test_who_comes_back_when_told_is_let_in(ledger: Ledger, clock: Clock) -> None:
    key = limited(requests_per_min=3)
    for _ in range(3):
        ledger.reserve(key, 1).settle(1)
    with pytest.raises(OverQuota) as caught:
        ledger.reserve(key, 1)
    assert caught.value.retry_after_s is not None
    clock.now += caught.value.retry_after_s
    ledger.reserve(key, 1).settle(1)
    assert refused(ledger, key) == "requests"


def test_concurrent_requests_give_their_place_back(ledger: Ledger) -> None:
    key = limited(concurrent=2)
    holds = [ledger.reserve(key, 1) for _ in range(2)]
    assert refused(ledger, key) == "concurrent"
    holds[0].settle(0)
    ledger.reserve(key, 1)
    assert refused(ledger, key) == "concurrent"


def test_a_budget_ends(ledger: Ledger) -> None:
    key = limited(token_budget=100)
    ledger.reserve(key, 60).settle(60)
    hold = ledger.reserve(key, 40)
    assert refused(ledger, key, 30) == "reserved"
    assert refused(ledger, key, 41) == "budget"
    hold.settle(0)
    ledger.reserve(key, 30).settle(40)
    assert refused(ledger, key, 1) == "budget"


def test_an_answer_that_outlasts_its_window_is_settled_all_the_same(ledger: Ledger, clock: Clock) -> None:
    key = limited(tokens_per_min=100, concurrent=1, token_budget=500)
    for wait_s in (30, 60, 3600):
        hold = ledger.reserve(key, 100)
        clock.now += wait_s
        hold.settle(10)
        clock.now += 120
    left = ledger.remaining(key)
    assert (left.tokens, left.budget) == (100, 470)


def test_keys_do_not_share(ledger: Ledger) -> None:
    ledger.reserve(limited(1, concurrent=1), 1)
    ledger.reserve(limited(2, concurrent=1), 1)
    assert refused(ledger, limited(1, concurrent=1)) == "concurrent"


def test_workers_share_each_keys_limits(three: list[Ledger]) -> None:
    key = limited(requests_per_min=30, tokens_per_min=300, concurrent=3, token_budget=1000)
    holds = [worker.reserve(key, 100) for worker in three]
    assert {refused(worker, key, 0) for worker in three} == {"concurrent"}
    for hold in holds:
        hold.settle(90)
    assert {worker.remaining(key).tokens for worker in three} == {30}
    assert {worker.remaining(key).budget for worker in three} == {730}
    assert {refused(worker, key, 31) for worker in three} == {"tokens"}


def test_numbers_beyond_all_sense_do_not_overflow(ledger: Ledger) -> None:
    key = limited(concurrent=10**9)
    for _ in range(100):
        ledger.reserve(key, 10**30).settle(10**30)
        ledger.reserve(key, -5).settle(-5)
    ledger.reserve(key, 1)


def test_the_file_grows_with_the_keys_for_every_worker(three: list[Ledger]) -> None:
    far = limited(5000, concurrent=2, requests_per_min=9)
    hold = three[0].reserve(far, 1)
    assert three[1].remaining(far).requests == 8
    three[1].reserve(far, 1)
    assert refused(three[2], far) == "concurrent"
    hold.settle(1)
    three[2].reserve(far, 1)


def test_there_is_an_end_of_keys(ledger: Ledger) -> None:
    with pytest.raises(LedgerUnavailable, match="at most"):
        ledger.reserve(limited(KEYS_MAX, concurrent=1), 1)


@pytest.mark.parametrize(("worker", "workers"), [(-1, 1), (1, 1), (0, 0), (0, 257)])
def test_places_are_counted_from_none_to_the_last(tmp_path: Path, worker: int, workers: int) -> None:
    with pytest.raises(ValueError, match="worker"):
        Ledger(tmp_path / "quota", worker, workers)


def test_a_successor_keeps_what_was_used_and_forgets_what_was_running(tmp_path: Path, clock: Clock) -> None:
    key = limited(requests_per_min=9, tokens_per_min=100, concurrent=1, token_budget=1000)
    died = Ledger(tmp_path / "quota", 0, 1, clock)
    died.reserve(key, 50).settle(50)
    lost = died.reserve(key, 30)
    with closing(Ledger(tmp_path / "quota", 0, 1, clock)) as successor:
        left = successor.remaining(key)
        assert (left.requests, left.budget) == (7, 950)
        successor.reserve(key, 20).settle(20)
    died.close()
    lost.settle(10)  # into a closed ledger: nothing to count in, and no error


def test_a_successor_leaves_the_other_workers_alone(three: list[Ledger], tmp_path: Path, clock: Clock) -> None:
    key = limited(concurrent=2)
    three[0].reserve(key, 1)
    three[1].reserve(key, 1)
    three[1].close()
    with closing(Ledger(tmp_path / "quota", 1, 3, clock)) as successor:
        successor.reserve(key, 1)
        assert refused(successor, key) == "concurrent"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_another_number_of_workers_takes_over_what_was_used(tmp_path: Path, clock: Clock, workers: int) -> None:
    key, far = limited(requests_per_min=9, token_budget=1000), limited(3000, token_budget=100)
    for worker in range(3):
        with closing(Ledger(tmp_path / "quota", worker, 3, clock)) as ledger:
            ledger.reserve(key, 50).settle(40)
            ledger.reserve(far, 7).settle(7)
            ledger.reserve(key, 9)
    with closing(Ledger(tmp_path / "quota", workers - 1, workers, clock)) as ledger:
        left = ledger.remaining(key)
        assert (left.requests, left.budget) == (3, 880)
        assert ledger.remaining(far).budget == 79


def test_a_reboot_starts_the_minute_anew_and_keeps_the_budget(tmp_path: Path, clock: Clock) -> None:
    key = limited(requests_per_min=2, token_budget=100)
    with closing(Ledger(tmp_path / "quota", 0, 1, clock)) as ledger:
        ledger.reserve(key, 50).settle(40)
        ledger.flush()
    clock.now = 3.0
    with closing(Ledger(tmp_path / "quota", 0, 1, clock)) as ledger:
        left = ledger.remaining(key)
        assert (left.requests, left.budget) == (2, 60)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes long"),
        (b"GLQUOTA1", "too short"),
        (b"SQLite format 3\0" * 100, "not a quota ledger"),
        (b"GLQUOTA1" + bytes(8) + bytes(112), "not a quota ledger"),
        (b"GLQUOTA1" + (2).to_bytes(8, "little") + bytes(100), "no whole number of rows"),
    ],
)
def test_a_file_that_is_not_a_ledger_is_left_as_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "quota"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(LedgerCorrupt, match=said):
            Ledger(path, 0, 2)
    assert path.read_bytes() == content


def test_the_state_folder_is_made(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "a" / "b" / "quota", 0, 2)) as ledger:
        ledger.close()
    assert (tmp_path / "a" / "b" / "quota").stat().st_size == 1024 * 2 * SLOT.size
