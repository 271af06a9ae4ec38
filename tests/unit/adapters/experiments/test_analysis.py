"""One look: the right sign, the right units, the right rule, and what makes it distrusted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from adapters.experiments.analysis import Estimate, Look, analyse
from adapters.experiments.metrics import UnitTable
from adapters.experiments.values import Experiment, Part
from monitoring.statistics.errors import BadSample
from monitoring.statistics.margins import Guard
from monitoring.statistics.values import Interval
from tests.unit.adapters.experiments.worlds import DAY, GUARD, NOW, PRIMARY, adaptive, experiment, table


def of(look: Look, metric: str, arm: str = "arm1") -> Estimate:
    return next(each for each in look.estimates if (each.metric, each.arm) == (metric, arm))


def bounds(found: Interval) -> tuple[float, float, float]:
    return found.lower, found.estimate, found.upper


def test_a_better_treatment_is_seen_as_better() -> None:
    test = experiment()
    look = analyse(test, table(test, good=(0.4, 0.6)), now=NOW)
    assert of(look, "thumbs_up_rate").interval.lower > 0.1
    assert of(look, "thumbs_up_rate").treatment == pytest.approx(0.6, abs=0.02)
    assert of(look, "thumbs_up_rate").control == pytest.approx(0.4, abs=0.02)
    assert sum(look.units.values()) == sum(look.settled.values()) == 4000


def test_fewer_errors_are_better() -> None:
    test = experiment()
    found = of(analyse(test, table(test, bad=(0.2, 0.1)), now=NOW), "error_rate")
    assert found.interval.lower > 0
    assert found.treatment < found.control
    assert found.guard is Guard.CLEAR
    assert of(analyse(test, table(test, bad=(0.1, 0.2)), now=NOW), "error_rate").guard is Guard.BREACHED


def test_swapping_control_and_treatment_flips_every_estimate() -> None:
    metrics = (PRIMARY, GUARD, replace(GUARD, name="errors", source="error_rate", role="diagnostic", margin=None))
    test = experiment(metrics=metrics)
    seen = table(test, good=(0.4, 0.5), bad=(0.05, 0.08))
    there, back = (analyse(test, one, now=NOW) for one in (seen, replace(seen, arm=1 - seen.arm)))
    for metric in test.metrics:
        forth, flipped = of(there, metric.name).interval, of(back, metric.name).interval
        assert flipped.estimate == pytest.approx(-forth.estimate)
        assert (flipped.lower, flipped.upper) == pytest.approx((-forth.upper, -forth.lower), abs=1e-3)


def test_the_order_of_rows_does_not_matter() -> None:
    test = experiment()
    seen = table(test)
    order = np.random.default_rng(3).permutation(seen.size)
    mixed = replace(
        seen,
        arm=seen.arm[order],
        first_at=seen.first_at[order],
        sums={key: column[order] for key, column in seen.sums.items()},
    )
    one, other = (analyse(test, each, now=NOW).estimates for each in (seen, mixed))
    assert [bounds(a.interval) for a in one] == [pytest.approx(bounds(b.interval)) for b in other]


def test_only_units_with_a_closed_window_count() -> None:
    test = experiment()
    seen = table(test, age_s=0.0)  # spread over the last day: no window of a day is closed but the first one's
    look = analyse(test, seen, now=NOW - 43_200.0)
    assert of(look, "thumbs_up_rate").interval.units == 0
    assert of(look, "error_rate").interval.units == pytest.approx(2000, abs=150)
    assert sum(look.settled.values()) == 0
    assert sum(look.units.values()) == 4000


def test_a_handful_of_units_says_nothing() -> None:
    test = experiment()
    for units in (0, 1, 3, 50):
        look = analyse(test, table(test, units=units), now=NOW)
        assert math.isinf(of(look, "thumbs_up_rate").interval.upper)
        assert of(look, "error_rate").guard is Guard.OPEN


def test_a_ratio_is_a_sum_over_a_sum() -> None:
    test = experiment(metrics=(replace(PRIMARY, name="thumbs_rate"), GUARD))
    seen = table(test)
    rated = np.random.default_rng(2).binomial(4, 0.5, seen.size).astype(np.float64)
    up = np.minimum(rated, seen.sums["thumbs_up@86400"])
    known = {**seen.sums, "rated@86400": rated, "thumbs_up@86400": up}
    found = of(analyse(test, replace(seen, sums=known), now=NOW), "thumbs_rate")
    treated = seen.arm == 1
    assert found.treatment == pytest.approx(up[treated].sum() / rated[treated].sum())
    nobody = {**known, "rated@86400": np.zeros(seen.size), "thumbs_up@86400": np.zeros(seen.size)}
    assert math.isinf(of(analyse(test, replace(seen, sums=nobody), now=NOW), "thumbs_rate").interval.upper)


def test_a_covariate_narrows_the_primary_metric() -> None:
    test = experiment()
    seen = table(test)
    taste = seen.sums["thumbs_up@86400"] + np.random.default_rng(4).normal(0, 0.5, seen.size)
    taste[::7] = np.nan  # of some nothing was known before
    with_it = replace(seen, covariate=taste)
    nothing = replace(seen, covariate=np.full(seen.size, np.nan))
    plain, helped, idle = (of(analyse(test, one, now=NOW), "thumbs_up_rate") for one in (seen, with_it, nothing))
    width = plain.interval.upper - plain.interval.lower
    assert helped.interval.upper - helped.interval.lower < 0.8 * width
    assert bounds(idle.interval) == pytest.approx(bounds(plain.interval))


def sliced(test: Experiment, seen: UnitTable, harmed: float) -> UnitTable:
    """Half of the units are Danish, of whom the treated have errors at the rate `harmed`."""
    generator = np.random.default_rng(5)
    danish = generator.integers(0, 2, seen.size)
    harm = generator.binomial(4, harmed, seen.size)
    errors = np.where((danish == 1) & (seen.arm == 1), harm, seen.sums["errors@600"])
    return replace(
        seen,
        sums={**seen.sums, "errors@600": errors.astype(np.float64)},
        slices={"language": danish},
        labels={"language": ("en", "da")},
    )


@pytest.mark.parametrize("part", ["worst", "gap"])
def test_a_slice_that_is_harmed_breaches_though_the_others_do_not(part: str) -> None:
    guard = replace(GUARD, slices=("language",), part=part)
    test = experiment(metrics=(PRIMARY, guard))
    found = of(analyse(test, sliced(test, table(test), 0.2), now=NOW), "error_rate")
    assert found.guard is Guard.BREACHED
    assert found.slices is not None
    assert set(found.slices) == {"language=da", "language=en"}
    assert found.slices["language=da"].estimate < -0.15 < -0.02 < found.slices["language=en"].estimate
    fair = of(analyse(test, sliced(test, table(test, units=40_000), 0.01), now=NOW), "error_rate")
    assert fair.guard is Guard.CLEAR


def test_units_of_no_slice_and_slices_of_few_units_hold_nothing_up() -> None:
    test = experiment(metrics=(PRIMARY, replace(GUARD, slices=("language",), part=str(Part.WORST))))
    seen = table(test, units=20_000)
    codes = np.zeros(seen.size, np.int64)
    codes[::9] = -1
    whole = replace(seen, slices={"language": codes}, labels={"language": ("en",)})
    assert of(analyse(test, whole, now=NOW), "error_rate").guard is Guard.CLEAR
    none = replace(seen, slices={"language": np.full(seen.size, -1)}, labels={"language": ()})
    assert of(analyse(test, none, now=NOW), "error_rate").guard is Guard.OPEN


def test_arms_of_unequal_size_are_a_mismatch() -> None:
    test = experiment()
    honest = analyse(test, table(test, units=20_000), now=NOW)
    seen = table(test, units=20_000)
    seen.arm[np.flatnonzero(seen.arm == 1)[:1500]] = 0
    crooked = analyse(test, seen, now=NOW)
    assert not honest.srm.alarms(0.001)
    assert crooked.srm.alarms(0.001)


def test_units_without_records_and_units_in_two_arms_break_the_data_path() -> None:
    test = experiment()
    seen = table(test)
    assert analyse(test, seen, now=NOW).broken == ()
    gone = {**seen.sums, "requests@0": np.where(np.arange(seen.size) % 10 == 0, 0.0, 4.0)}
    assert "no record" in analyse(test, replace(seen, sums=gone), now=NOW).broken[0]
    both = analyse(test, replace(seen, mixed=np.arange(seen.size) % 20 == 0, unitless=16_000), now=NOW)
    assert "two arms" in both.broken[0]
    assert (both.mixed, both.unitless) == (0.05, 0.5)
    young = table(test, age_s=-DAY)  # everything happened a moment ago: the records are still on their way
    assert analyse(test, replace(young, sums={**young.sums, "requests@0": np.zeros(4000)}), now=NOW).broken == ()


@pytest.mark.parametrize(
    "spoilt",
    [
        {"sums": {}},
        {"arm": np.full(4000, 2)},
        {"arm": np.full(4000, -1)},
        {"first_at": np.full(4000, np.nan)},
        {"first_at": np.zeros(3)},
    ],
)
def test_columns_that_cannot_be_are_refused(spoilt: dict[str, object]) -> None:
    test = experiment()
    with pytest.raises(BadSample):
        analyse(test, replace(table(test), **spoilt), now=NOW)  # type: ignore[arg-type]


def test_slices_and_propensities_must_be_there_where_they_are_needed() -> None:
    test = experiment(metrics=(PRIMARY, replace(GUARD, slices=("language",))))
    with pytest.raises(BadSample, match="language"):
        analyse(test, table(test), now=NOW)
    learning = adaptive(metrics=(PRIMARY, GUARD))
    with pytest.raises(BadSample, match="propensity"):
        analyse(learning, table(learning, good=(0.5,) * 3, bad=(0.01,) * 3), now=NOW)


def test_under_moving_shares_the_estimate_weighs_by_propensity() -> None:
    test = replace(adaptive(), opened_at=NOW - 30 * DAY)
    epochs = [replace(test.epochs[0], since=NOW - 30 * DAY), replace(test.epochs[0], since=NOW - 11 * DAY + 43_200)]
    epochs[1] = replace(epochs[1], shares=(0.2, 0.2, 0.6))
    test = replace(test, epochs=tuple(epochs))
    generator = np.random.default_rng(8)
    seen = table(test, units=12_000, good=(0.5,) * 3, bad=(0.01,) * 3)
    late = seen.first_at >= epochs[1].since
    arm = np.where(late, generator.choice(3, seen.size, p=epochs[1].shares), generator.integers(0, 3, seen.size))
    rate = np.asarray((0.4, 0.5, 0.6))[arm] + 0.2 * late  # the days differ, and so would plain means
    up = generator.binomial(4, rate).astype(np.float64)
    own = np.where(late, np.asarray(epochs[1].shares)[arm], np.asarray(epochs[0].shares)[arm])
    look = analyse(test, replace(seen, arm=arm, propensity=own, sums={**seen.sums, "thumbs_up@86400": up}), now=NOW)
    best = of(look, "thumbs_up_rate", "arm2").interval
    assert best.lower < 0.2 < best.upper
    assert best.lower > 0.1
    assert not look.srm.alarms(0.001)
    assert of(look, "error_rate", "arm1").guard is not Guard.BREACHED


def test_an_arm_that_was_dropped_is_not_looked_at_any_more() -> None:
    test = replace(experiment(3), dropped=("arm1",))
    look = analyse(test, table(test, good=(0.5,) * 3, bad=(0.01,) * 3), now=NOW)
    assert {each.arm for each in look.estimates} == {"arm2"}
    assert not look.srm.alarms(0.001)


@pytest.mark.slow
def test_a_million_units_are_analysed_in_a_second_or_so() -> None:
    from adapters.experiments.bench import analysis_s

    assert analysis_s(1_000_000) < 4.0
