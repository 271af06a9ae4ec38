"""What a first forward must give, and when a replica serves what was probed."""

from __future__ import annotations

import json
import math
import random

import pytest

from adapters.checks.parity import APART, Certificate, Tolerances, certificate, labels
from adapters.checks.probe import EFFECT_MIN, Recorded, failed, recorded
from adapters.errors import Rejected

PROMPTS = ((1, 2, 3, 4), (5, 6, 7))
BASE = ((-1.0, -0.1, -3.0), (-0.5, -2.0))
OURS = ((-2.0, -0.1, -0.2), (-0.5, -0.3))


def made(ours: tuple[tuple[float, ...], ...] = OURS, base: tuple[tuple[float, ...], ...] = BASE) -> Recorded:
    return recorded(PROMPTS, ours, base, seconds=0.1, by="test")


def codes(error: Rejected) -> list[str]:
    return [reason.code for reason in error.reasons]


def shifted(rows: tuple[tuple[float, ...], ...], by: float) -> list[list[float]]:
    return [[value + by for value in row] for row in rows]


def test_what_was_recorded_survives_json() -> None:
    found = made()
    assert found.effect == pytest.approx(2.8)
    assert Recorded.from_document(json.loads(json.dumps(found.document()))) == found


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(odd: float) -> None:
    with pytest.raises(Rejected) as caught:
        made(((-2.0, odd, -0.2), (-0.5, -0.3)))
    assert codes(caught.value) == ["not_finite"]


def test_an_adapter_that_changes_nothing_is_refused_and_the_smallest_change_is_not() -> None:
    with pytest.raises(Rejected) as caught:
        made(BASE)
    assert codes(caught.value) == ["no_effect"]
    assert made(((-1.0, -0.1, -3.0), (-0.5, -2.0 - 2 * EFFECT_MIN)), BASE).effect == pytest.approx(2 * EFFECT_MIN)


@pytest.mark.parametrize(("ours", "base"), [(OURS[:1], BASE), (OURS, BASE[:1]), (((-2.0,), (-0.5, -0.3)), BASE)])
def test_an_answer_of_another_length_is_a_failed_probe(
    ours: tuple[tuple[float, ...], ...], base: tuple[tuple[float, ...], ...]
) -> None:
    with pytest.raises(Rejected) as caught:
        made(ours, base)
    assert codes(caught.value) == ["probe_failed"]


def test_a_failed_probe_says_what_happened_and_what_to_do() -> None:
    (reason,) = failed("it was killed by SIGSEGV").reasons
    assert (reason.code, reason.found) == ("probe_failed", "it was killed by SIGSEGV")
    assert "PEFT" in reason.advice


def test_a_replica_that_serves_what_was_recorded_is_certified() -> None:
    found = certificate(made(), shifted(OURS, 0.01))
    assert found.passed
    assert found.reasons == ()
    assert found.most <= 0.0102
    assert found.document() == {"passed": True, "mean": found.mean, "p99": found.p99, "most": found.most, "reasons": []}


def test_each_tolerance_is_named_when_it_is_missed() -> None:
    strict = Tolerances(mean=0.0, p99=0.0, most=0.0)
    found = certificate(made(), shifted(OURS, -0.01), strict)
    assert [reason.field for reason in found.reasons] == ["parity.mean", "parity.p99", "parity.most"]
    assert {reason.code for reason in found.reasons} == {"parity_mismatch"}
    assert found.document()["reasons"][0]["code"] == "parity_mismatch"
    assert not found.passed


def test_the_base_served_in_place_of_the_adapter_is_called_by_its_name() -> None:
    found = certificate(made(), BASE)
    assert not found.passed
    assert "serves_base" in [reason.code for reason in found.reasons]


def test_an_adapter_too_weak_for_the_tolerances_is_still_told_from_its_base() -> None:
    rng = random.Random(0)
    base = tuple(tuple(rng.uniform(-2, -0.1) for _ in range(200)) for _ in range(3))
    ours = tuple(tuple(value + rng.choice((-0.04, 0.04)) for value in row) for row in base)
    prompts = [range(201)] * 3
    weak = recorded(prompts, ours, base, seconds=0, by="test")
    rounded = [[value + rng.gauss(0, 0.007) for value in row] for row in ours]
    assert certificate(weak, rounded).passed
    assert [reason.code for reason in certificate(weak, base).reasons] == ["serves_base"]
    assert labels(weak) == ()
    fainter = tuple(tuple(value + rng.choice((-1, 1)) * APART / 2 for value in row) for row in base)
    hidden = recorded(prompts, fainter, base, seconds=0, by="test")
    assert certificate(hidden, base).passed
    assert labels(hidden) == ("weak_effect",)


def test_tokens_that_nobody_would_see_do_not_count() -> None:
    unlikely = made(((-16.0, -0.1, -0.2), (-0.5, -12.0)))
    assert certificate(unlikely, [[-18.0, -0.1, -0.2], [-0.5, -11.0]]).passed
    assert not certificate(unlikely, [[-2.0, -0.1, -0.2], [-0.5, -12.0]]).passed


def test_a_logprob_a_hair_above_nothing_is_a_rounded_certainty() -> None:
    sure = made(((0.0, -0.1, -0.2), (-0.5, -0.3)))
    assert certificate(sure, [[1e-6, -0.1, -0.2], [-0.5, -0.3]]).passed


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_never_certified(odd: float) -> None:
    found = certificate(made(), [[odd, -0.1, -0.2], [-0.5, -0.3]])
    assert not found.passed
    assert [reason.code for reason in found.reasons] == ["not_finite"]


@pytest.mark.parametrize("served", [[], OURS[:1], [OURS[0], (-0.5,)], [*OURS, (-1.0,)]])
def test_other_lengths_are_never_certified(served: list[tuple[float, ...]]) -> None:
    found = certificate(made(), served)
    assert not found.passed
    assert [reason.code for reason in found.reasons] == ["not_comparable"]


def test_nothing_to_compare_is_compared_without_falling_over() -> None:
    empty = Recorded(prompts=((1,),), logprobs=((),), base_logprobs=((),), effect=1.0, seconds=0, by="test")
    assert certificate(empty, [[]]) == Certificate(passed=True, mean=0, p99=0, most=0)
    nothing = Recorded(prompts=(), logprobs=(), base_logprobs=(), effect=1.0, seconds=0, by="test")
    assert certificate(nothing, []).passed
