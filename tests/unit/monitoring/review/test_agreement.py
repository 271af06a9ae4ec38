"""Coefficients of agreement, against the examples that their authors worked out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.review.agreement import alpha_of, cohen, fleiss, fleiss_of, krippendorff, pairs

#: Krippendorff (2011), part C: four observers, twelve units; a dot was not seen.
FOUR = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
#: Three coders and fifteen units, the example that most packages are checked with.
THREE = (".....34121133.3", "1.213343.......", "..21344.21133.4")
#: Fleiss (1971), table 1: thirty patients, six psychiatrists, five diagnoses.
DIAGNOSES = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 "
    "00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"
)


def units(*observers: str) -> list[list[float]]:
    """What was said of each unit, by whoever saw it."""
    return [[float(said) for said in unit if said != "."] for unit in zip(*observers, strict=True)]


def test_cohen_s_kappa_of_a_two_by_two_table() -> None:
    """The example of fifty grant proposals: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen(first, second)
    assert found.value == pytest.approx(0.4)
    assert (found.items, found.ratings, found.observed) == (50, 100, 0.7)


def test_fleiss_own_example_of_psychiatric_diagnoses() -> None:
    found = fleiss([[int(count) for count in row] for row in DIAGNOSES.split()])
    assert round(found.value, 3) == 0.430
    assert round(found.observed, 3) == 0.556
    assert (found.items, found.ratings) == (30, 180)


def test_krippendorff_s_own_examples() -> None:
    """Computing Krippendorff's alpha-reliability (2011), parts A to D."""
    assert round(krippendorff(units("0100000010", "1110010000")).value, 3) == 0.095
    assert round(krippendorff([*zip("aabbdcccedda", "babbbccceddd", strict=True)]).value, 3) == 0.692
    found = krippendorff(units(*FOUR))
    assert round(found.value, 3) == 0.743
    assert (found.items, found.ratings) == (11, 40)
    assert round(krippendorff(units(*FOUR), "interval").value, 3) == 0.849


def test_krippendorff_s_alpha_of_three_coders_with_gaps() -> None:
    found = krippendorff(units(*THREE))
    assert round(found.value, 3) == 0.691
    assert round(krippendorff(units(*THREE), "interval").value, 3) == 0.811
    assert (found.items, found.ratings) == (12, 26)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=20))
def test_those_who_agree_on_everything_score_one_unless_there_is_only_one_thing_to_say(said: Sequence[str]) -> None:
    found = (cohen(said, said), krippendorff([[each, each] for each in said]))
    for each in found:
        assert math.isnan(each.value) if len(set(said)) == 1 else each.value == pytest.approx(1.0)


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=3, max_size=3), min_size=2, max_size=15))
def test_alpha_is_kappa_corrected_for_small_samples(rows: list[list[str]]) -> None:
    """1 − α = (1 − κ)(1 − 1/n) with Fleiss' κ, where everybody judged everything."""
    kappa = fleiss([[row.count("a"), row.count("b")] for row in rows]).value
    alpha = krippendorff(rows).value
    assert math.isnan(kappa) == math.isnan(alpha)
    if not math.isnan(kappa):
        assert 1 - alpha == pytest.approx((1 - kappa) * (1 - 1 / (3 * len(rows))))


def test_nothing_judged_twice_is_no_agreement_and_no_disagreement() -> None:
    alone = {"t1": {"ann": "up"}, "t2": {"bob": "down"}}
    assert math.isnan(alpha_of(alone).value)
    assert math.isnan(fleiss_of(alone)[0].value)
    assert fleiss_of(alone)[1] == 0
    assert pairs(alone) == []
    assert math.isnan(cohen([], []).value)


def test_every_pair_is_measured_on_what_both_judged_and_fleiss_on_the_commonest_number_of_people() -> None:
    said = {
        "t1": {"ann": "up", "bob": "up", "eve": "up"},
        "t2": {"ann": "up", "bob": "down"},
        "t3": {"ann": "down", "bob": "down"},
        "t4": {"eve": "up"},
    }
    found = {(pair.first, pair.second): pair.kappa for pair in pairs(said)}
    assert {names: kappa.items for names, kappa in found.items()} == {
        ("ann", "bob"): 3,
        ("ann", "eve"): 1,
        ("bob", "eve"): 1,
    }
    assert found["ann", "bob"].value == pytest.approx(0.4)
    kappa, people = fleiss_of(said)
    assert (people, kappa.items) == (2, 2)
    assert alpha_of(said).items == 3


def test_what_is_not_comparable_is_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        cohen(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        fleiss([[2, 0], [3, 0]])
