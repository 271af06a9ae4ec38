"""Who is in which arm: sticky, equal-sized, independent of other experiments."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.experiments.assignment import assign, bucket, epoch, plan
from adapters.experiments.values import BUCKETS, RAMP, Step
from tests.unit.adapters.experiments.worlds import NOW, adaptive, experiment

BUCKETS_OF = {"": 5359, "a": 856, "user-1": 7588, "ä": 1383}


def placed(test: object, at: int) -> str:
    found = assign(plan(test), at)  # type: ignore[arg-type]
    return found.arm.name if found else ""


@given(st.integers(0, BUCKETS - 1), st.integers(2, 5), st.sampled_from([0, 500, 1000]))
def test_a_unit_that_is_in_an_arm_stays_there_through_every_step(at: int, arms: int, holdout: int) -> None:
    test = experiment(arms, holdout=holdout)
    seen = [placed(replace(test, step=step), at) for step in range(len(test.ramp))]
    first = next((n for n, name in enumerate(seen) if name), len(seen))
    assert len(set(seen[first:])) <= 1


@given(st.integers(2, 6), st.integers(0, 2), st.sampled_from([0, 100, 2000]))
def test_the_arms_own_equally_many_buckets_and_never_the_hold_out(arms: int, step: int, holdout: int) -> None:
    planned = plan(replace(experiment(arms, holdout=holdout), step=step))
    sizes = Counter(planned.table)
    assert {sizes[at] for at in range(arms)} == {RAMP[step].share}
    assert set(planned.table[BUCKETS - holdout :]) <= {255}
    assert [assigned.propensity for assigned in planned.arms] == [1 / arms] * arms


def test_two_arms_grow_from_the_two_ends() -> None:
    """The treatment has [0, p), the control the last p before the hold-out."""
    planned = plan(experiment(holdout=1000))
    assert set(planned.table[:100]) == {1}
    assert set(planned.table[8900:9000]) == {0}
    assert set(planned.table[100:8900]) == set(planned.table[9000:]) == {255}


def test_at_fifty_percent_two_arms_take_every_unit_in_equal_parts() -> None:
    planned = plan(replace(experiment(), step=len(RAMP) - 1))
    found = (assign(planned, bucket(planned.key, f"user-{n}")) for n in range(20_000))
    counts = Counter(each.arm.name if each else "" for each in found)
    assert set(counts) == {"arm0", "arm1"}
    assert abs(counts["arm0"] - 10_000) < 4 * 71  # four standard deviations


def test_two_experiments_share_their_units_independently() -> None:
    keys = [plan(experiment(salt=salt)).key for salt in ("a", "b")]
    both = Counter(tuple(bucket(key, f"u{n}") < BUCKETS // 2 for key in keys) for n in range(20_000))
    assert all(abs(count - 5000) < 4 * 62 for count in both.values())


def test_the_bucket_is_the_same_in_every_process_and_version() -> None:
    """A change of these numbers would move every unit of every running experiment."""
    assert {unit: bucket(b"salt", unit) for unit in BUCKETS_OF} == BUCKETS_OF


@given(st.text(st.characters(), max_size=20))
def test_any_text_names_a_unit(unit: str) -> None:
    assert 0 <= bucket(b"salt", unit) < BUCKETS


def test_a_dropped_arm_is_given_to_nobody() -> None:
    test = replace(experiment(3), dropped=("arm1",))
    planned = plan(test)
    assert set(planned.table) == {0, 2, 255}
    assert [assigned.propensity for assigned in planned.arms] == [0.5, 0.0, 0.5]


def test_an_adaptive_experiment_follows_its_shares_and_moves_few_buckets() -> None:
    test = adaptive()
    before = plan(test).table
    moved = epoch(test, since=NOW, targets=(0.2, 0.3, 0.5))
    after = plan(replace(test, epochs=(*test.epochs, moved)))
    assert moved.shares == tuple(assigned.propensity for assigned in after.arms)
    assert all(abs(share - aim) < 0.02 for share, aim in zip(moved.shares, moved.targets, strict=True))
    changed = [(a, b) for a, b in zip(before, after.table, strict=True) if a != b]
    assert set(changed) <= {(0, 1), (0, 2), (1, 2)}  # only towards arms that grew more
    assert len(changed) < 0.2 * BUCKETS


def test_an_adaptive_experiment_gives_a_dropped_arms_buckets_to_the_others() -> None:
    test = replace(adaptive(), dropped=("arm2",))
    begun = epoch(test, since=NOW, targets=test.epochs[-1].targets)
    planned = plan(replace(test, epochs=(*test.epochs, begun)))
    assert begun.shares[2] == 0.0
    assert set(planned.table[:9999]) == {0, 1}


def test_an_adaptive_ramp_keeps_every_bucket_in_its_arm() -> None:
    test = adaptive(ramp=(Step(share=100, at_least_s=0.0), Step(share=3333, at_least_s=0.0)))
    first, then = plan(test).table, plan(replace(test, step=1)).table
    assert first[:300] == then[:300]
    assert set(first[300:]) == {255}


@pytest.mark.slow
def test_an_assignment_takes_microseconds() -> None:
    planned = plan(experiment())
    units = [f"user-{n}" for n in range(20_000)]
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for unit in units:
            assign(planned, bucket(planned.key, unit))
        best = min(best, (time.perf_counter() - began) / len(units))
    assert best < 5e-6
