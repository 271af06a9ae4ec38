"""The difference of two arms, against what it must equal and against an independent package."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt

from monitoring.statistics.effects import difference
from monitoring.statistics.errors import BadSample
from monitoring.statistics.values import Sample, sample


def arms(seed: int = 1, *, weights: bool = False, covariate: bool = False) -> tuple[Sample, Sample]:
    generator = np.random.default_rng(seed)
    found = []
    for size, lift in ((400, 0.0), (350, 0.2)):
        x = generator.normal(size=size)
        w = 1 + generator.poisson(3, size)
        v = generator.binomial(w, 0.4 + lift / 2) + 0.7 * x
        found.append(sample(v, weights=w if weights else None, covariate=x if covariate else None))
    return found[0], found[1]


def table(control: Sample, treatment: Sample) -> pa.Table:
    both = (control, treatment)
    columns: dict[str, object] = {
        "variant": np.repeat([0, 1], [arm.size for arm in both]),
        "v": np.concatenate([arm.values for arm in both]),
    }
    if control.weights is not None:
        columns["w"] = np.concatenate([arm.weights for arm in both if arm.weights is not None])
    if control.covariate is not None:
        columns["x"] = np.concatenate([arm.covariate for arm in both if arm.covariate is not None])
    return pa.table(columns)


@pytest.mark.parametrize(("weights", "covariate"), [(False, False), (True, False), (False, True)])
def test_an_effect_agrees_with_tea_tasting(weights: bool, covariate: bool) -> None:
    control, treatment = arms(weights=weights, covariate=covariate)
    given = {"use_t": False, "equal_var": False}
    metric = (
        tt.RatioOfMeans("v", "w", **given) if weights else tt.Mean("v", covariate="x" if covariate else None, **given)
    )
    theirs = tt.Experiment(m=metric).analyze(table(control, treatment))["m"]
    ours = difference(control, treatment)
    assert ours.estimate == pytest.approx(theirs.effect_size, abs=1e-6)
    assert ours.estimate / ours.variance**0.5 == pytest.approx(theirs.statistic, abs=1e-6)


def test_swapping_the_arms_flips_the_sign_and_nothing_else() -> None:
    control, treatment = arms(weights=True, covariate=True)
    forth, back = difference(control, treatment), difference(treatment, control)
    assert forth.estimate == pytest.approx(-back.estimate)
    assert forth.estimate > 0
    assert forth.variance == pytest.approx(back.variance)
    assert (forth.control, forth.treatment) == (back.treatment, back.control)


def test_a_covariate_narrows_the_estimate() -> None:
    plain, adjusted = difference(*arms()), difference(*arms(covariate=True))
    assert adjusted.variance < 0.85 * plain.variance
    assert adjusted.theta == pytest.approx(0.7, abs=0.15)


def test_a_covariate_that_never_differs_changes_nothing() -> None:
    control, treatment = arms()
    same = [Sample(values=arm.values, covariate=np.ones(arm.size)) for arm in (control, treatment)]
    assert difference(*same).estimate == difference(control, treatment).estimate
    assert difference(*same).theta == 0


def test_a_unit_counts_once_however_often_it_came() -> None:
    """A ratio of sums on units: three good answers of one user are one unit."""
    one = sample([3.0, 0.0, 1.0], weights=[3, 1, 1])
    other = sample([1.0, 1.0], weights=[1, 1])
    found = difference(one, other)
    assert (found.control, found.treatment, found.units) == (0.8, 1.0, 5)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"values": [1.0, float("nan")]}, "not finite"),
        ({"values": [[1.0]]}, "one column"),
        ({"values": [1.0, 2.0], "weights": [1.0]}, "differ in length"),
        ({"values": [1.0, 2.0], "weights": [1.0, -1.0]}, "negative"),
        ({"values": [1.0, 2.0], "weights": [0.0, 0.0]}, "zero"),
    ],
)
def test_a_sample_that_cannot_be_is_refused(columns: dict[str, object], says: str) -> None:
    with pytest.raises(BadSample, match=says):
        sample(**columns)  # type: ignore[arg-type]


def test_arms_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(BadSample, match="Only one arm has weights"):
        difference(sample([1, 2]), sample([1, 2], weights=[1, 1]))
    with pytest.raises(BadSample, match="two units"):
        difference(sample([1]), sample([1, 2]))
