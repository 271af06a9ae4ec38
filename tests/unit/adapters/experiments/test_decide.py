"""What is decided from what was seen: each line of the order, and what must hold for any look."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.experiments import ramp
from adapters.experiments.analysis import Estimate, Look
from adapters.experiments.decide import Decision, decide
from adapters.experiments.metrics import UnitTable
from adapters.experiments.values import Arm, Experiment, Role, Step, Verdict
from monitoring.statistics.margins import Guard
from monitoring.statistics.mismatch import mismatch
from monitoring.statistics.values import Interval
from tests.unit.adapters.experiments.worlds import HALF, NOW, adaptive, blank, experiment, table

BETTER, WORSE, OPEN = (0.01, 0.2), (-0.2, -0.01), (-0.1, 0.1)


def look(*arms: tuple[tuple[float, float], Guard], units: tuple[int, ...] = (500, 500), **changes: object) -> Look:
    """`arms`: the bounds of each treatment's primary metric, and the state of its guardrail."""
    estimates = []
    for n, ((low, high), guard) in enumerate(arms, start=1):
        interval = Interval(estimate=(low + high) / 2 + n / 1000, lower=low, upper=high, units=1000)
        for name, role, state in (("thumbs", Role.PRIMARY, None), ("errors", Role.GUARDRAIL, guard)):
            estimates.append(
                Estimate(
                    metric=name, arm=f"arm{n}", role=role, interval=interval, control=0.0, treatment=0.0, guard=state
                )
            )
    found = Look(
        at=NOW,
        units={f"arm{n}": count for n, count in enumerate(units)},
        settled={},
        srm=mismatch(units, [1] * len(units)),
        estimates=tuple(estimates),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def decided(seen: Look, test: Experiment | None = None, *, now: float = NOW, **given_: object) -> Decision:
    return decide(test or experiment(ramp=HALF), seen, now=now, **given_)  # type: ignore[arg-type]


def test_a_shown_lift_within_every_margin_is_promoted() -> None:
    found = decided(look((BETTER, Guard.CLEAR)))
    assert (found.verdict, found.arm) == (Verdict.PROMOTE, "arm1")


def test_of_two_winners_the_better_one_is_promoted() -> None:
    found = decided(look((BETTER, Guard.CLEAR), ((0.01, 0.4), Guard.CLEAR), units=(9, 9, 9)), experiment(3, ramp=None))
    assert (found.verdict, found.arm) == (Verdict.PROMOTE, "arm2")


@pytest.mark.parametrize(
    ("bounds", "guard", "said"),
    [
        (OPEN, Guard.CLEAR, "primary metric to be shown better"),
        (WORSE, Guard.CLEAR, "primary metric to be shown better"),
        (BETTER, Guard.OPEN, "errors to be shown within its margin"),
    ],
)
def test_what_is_not_shown_is_waited_for(bounds: tuple[float, float], guard: Guard, said: str) -> None:
    found = decided(look((bounds, guard)))
    assert found.verdict is Verdict.HOLD
    assert said in found.reasons[0]
    assert found.trusted


def test_a_breach_is_rolled_back_at_once_even_when_nothing_else_can_be_trusted() -> None:
    for broken in ((), ("the spool is full",)):
        seen = look((BETTER, Guard.BREACHED), units=(9000, 500), broken=broken)
        found = decided(seen, broken=broken)
        assert (found.verdict, found.arm) == (Verdict.ROLL_BACK, "arm1")
        assert "errors past the margin" in found.reasons[0]


def test_an_arm_that_may_not_serve_any_more_is_rolled_back() -> None:
    found = decided(blank(), unfit={"arm1": "version 2 is rejected and may not serve"})
    assert found.verdict is Verdict.ROLL_BACK
    assert found.reasons == ("arm1: version 2 is rejected and may not serve",)


def test_one_breached_arm_of_several_is_dropped_and_the_last_rolled_back() -> None:
    test = experiment(3)
    found = decided(look((OPEN, Guard.BREACHED), (BETTER, Guard.CLEAR), units=(5, 5, 5)), test)
    assert (found.verdict, found.arm) == (Verdict.DROP, "arm1")
    alone = replace(test, dropped=("arm1",))
    assert decided(look((OPEN, Guard.OPEN), (OPEN, Guard.BREACHED), units=(5, 5, 5)), alone).arm == "arm2"
    assert decided(look((OPEN, Guard.BREACHED), (OPEN, Guard.BREACHED)), test).verdict is Verdict.ROLL_BACK


def test_a_mismatch_holds_now_and_after_it_was_seen_once() -> None:
    found = decided(look((BETTER, Guard.CLEAR), units=(2000, 1500)))
    assert (found.verdict, found.trusted) == (Verdict.HOLD, False)
    assert "sample-ratio mismatch" in found.reasons[0]
    test = replace(experiment(ramp=HALF), srm=-math.log(0.001))
    assert decided(look((BETTER, Guard.CLEAR)), test).verdict is Verdict.HOLD


def test_a_broken_data_path_holds_with_its_reason() -> None:
    found = decided(look((BETTER, Guard.CLEAR), broken=("5 % are missing",)), broken=("the spool is full",))
    assert found.verdict is Verdict.HOLD
    assert found.reasons == ("the spool is full", "5 % are missing")


def test_a_winner_whose_arms_fail_the_final_check_is_held() -> None:
    seen = look((BETTER, Guard.CLEAR), units=(1120, 950))
    assert not seen.srm.alarms(0.001)
    found = decided(seen)
    assert (found.verdict, found.trusted, found.arm) == (Verdict.HOLD, False, "arm1")


def test_nothing_is_promoted_before_its_time() -> None:
    test = experiment(ramp=HALF, promote_after_s=100.0)
    found = decided(look((BETTER, Guard.CLEAR)), test, now=NOW + 40)
    assert found.verdict is Verdict.HOLD
    assert found.reasons == ("nothing is promoted for another 60 s",)
    assert decided(look((BETTER, Guard.CLEAR)), test, now=NOW + 100).verdict is Verdict.PROMOTE


def test_the_ramp_goes_on_when_its_step_has_lasted() -> None:
    test = experiment()
    waits = decided(look((OPEN, Guard.OPEN)), test, now=NOW + 3599)
    assert waits.verdict is Verdict.HOLD
    assert waits.reasons[-1] == "the next step, 5 % an arm, in 1 s"
    assert decided(look((OPEN, Guard.OPEN)), test, now=NOW + 3600).verdict is Verdict.RAMP
    assert decided(look((OPEN, Guard.OPEN)), replace(test, step=4), now=NOW + 1e6).verdict is Verdict.HOLD


SAME = (Arm(name="arm0", number=1), Arm(name="arm1", number=1))


@pytest.mark.parametrize(
    ("seen", "alarm"),
    [
        (look((BETTER, Guard.CLEAR)), "differs"),
        (look((WORSE, Guard.OPEN)), "differs"),
        (look((OPEN, Guard.BREACHED)), "past the margin"),
        (look((OPEN, Guard.OPEN), units=(2000, 1500)), "mismatch"),
        (look((OPEN, Guard.OPEN), broken=("nothing came",)), "nothing came"),
    ],
)
def test_a_self_test_alarms_and_moves_nothing(seen: Look, alarm: str) -> None:
    found = decided(seen, experiment(arms=SAME, selftest=True))
    assert found.verdict is Verdict.HOLD
    assert found.reasons[0].startswith("self-test alarm: ")
    assert alarm in found.reasons[0]


def test_a_quiet_self_test_takes_its_ramp_and_says_that_it_is_quiet() -> None:
    test = experiment(arms=SAME, selftest=True)
    assert decided(look((OPEN, Guard.CLEAR)), test, now=NOW + 3600).verdict is Verdict.RAMP
    quiet = decided(look((OPEN, Guard.CLEAR)), replace(test, step=4))
    assert quiet.reasons == ("self-test: no difference between one version and itself, 1000 units",)


guards = st.sampled_from(list(Guard))
ends = st.sampled_from([BETTER, WORSE, OPEN, (-math.inf, math.inf)])


@given(
    st.lists(st.tuples(ends, guards), min_size=2, max_size=2),
    st.sampled_from([(500, 500, 500), (900, 300, 500)]),
    st.lists(st.just("broken"), max_size=1),
    st.floats(0, 1e5),
)
def test_what_must_hold_for_any_look(
    arms: list[tuple[tuple[float, float], Guard]], units: tuple[int, ...], broken: list[str], later: float
) -> None:
    found = decided(look(*arms, units=units), experiment(3), now=NOW + later, broken=broken)
    breached = [n for n, (_, guard) in enumerate(arms, start=1) if guard is Guard.BREACHED]
    assert found.reasons
    assert (found.verdict is Verdict.ROLL_BACK) == (len(breached) == 2)
    assert (found.verdict is Verdict.DROP) == (len(breached) == 1)
    if found.verdict in (Verdict.PROMOTE, Verdict.RAMP):
        assert not breached
        assert not broken
        assert units[0] == units[1]
    if found.verdict is Verdict.PROMOTE:
        low, guard = arms[int(found.arm[-1]) - 1][0][0], arms[int(found.arm[-1]) - 1][1]
        assert low > 0
        assert guard is Guard.CLEAR


@given(st.integers(0, 4), st.floats(0, 1e6))
def test_a_step_is_never_taken_before_its_time_nor_past_the_end(step: int, later: float) -> None:
    test = replace(experiment(), step=step)
    after = ramp.following(test, now=NOW + later)
    if step == 4:
        assert after is None
    else:
        assert after is not None
        assert after.step == step + 1
        assert (after.waits_s == 0) == (later >= 3600)


def learned(test: Experiment, good: tuple[float, ...]) -> UnitTable:
    return table(test, units=600, good=good, bad=(0.01,) * 3)


def test_the_shares_follow_what_was_seen_and_keep_the_floor() -> None:
    test = adaptive(now=NOW - 3600.0)
    aimed = ramp.targets(test, learned(test, (0.5, 0.5, 0.8)), now=NOW)
    assert aimed is not None
    assert sum(aimed) == pytest.approx(1.0)
    assert aimed[2] > 0.7
    assert min(aimed) >= 0.1 - 1e-9
    assert aimed == ramp.targets(test, learned(test, (0.5, 0.5, 0.8)), now=NOW)
    dropped = ramp.targets(replace(test, dropped=("arm2",)), learned(test, (0.5, 0.5, 0.8)), now=NOW)
    assert dropped is not None
    assert dropped[2] == 0.0
    assert sum(dropped) == pytest.approx(1.0)


def test_an_epoch_lasts_its_time_and_a_fixed_split_has_none() -> None:
    test = adaptive(now=NOW - 3599.0)
    assert ramp.targets(test, learned(test, (0.5,) * 3), now=NOW) is None
    fixed = experiment()
    assert ramp.targets(fixed, table(fixed), now=NOW) is None


def test_less_is_better_moves_the_shares_the_other_way() -> None:
    from adapters.experiments.definition import Declared

    test = adaptive(now=NOW - 3600.0, metrics=(Declared(name="error_rate", role="primary"),))
    seen = table(test, units=600, good=(0.5,) * 3, bad=(0.5, 0.1, 0.5))
    aimed = ramp.targets(test, seen, now=NOW)
    assert aimed is not None
    assert aimed[1] > 0.7
    scored = Declared(name="won", role="primary", source="feedback:won", kind="proportion", better="higher")
    with_scalar = adaptive(now=NOW - 3600.0, metrics=(scored,))
    ones = {"scalar_sum:won@86400": np.ones(600), "scalar_count:won@86400": np.ones(600)}
    assert ramp.targets(with_scalar, replace(seen, sums=ones), now=NOW) is not None


def test_a_step_says_its_share() -> None:
    assert ramp.following(experiment(ramp=(Step(share=1, at_least_s=0), *HALF)), now=NOW) == ramp.Next(
        step=1, share=5000, waits_s=0.0
    )
