"""What may be opened: every reason against it is given at once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from adapters.experiments.definition import Declared, Definition, made
from adapters.experiments.errors import BadExperiment
from adapters.experiments.metrics import SOURCES, columns, wanted
from adapters.experiments.values import Adaptive, Arm, Better, Experiment, Kind, Step, Verdict
from tests.unit.adapters.experiments.worlds import GUARD, NOW, PRIMARY, adaptive, definition, experiment


def opened(wish: Definition, verified: tuple[int, ...] = (1, 2, 3, 4), points_at: int = 1) -> Experiment:
    return made(
        wish, id_="e", salt="s", who="ann", now=NOW, verified=lambda number: number in verified, points_at=points_at
    )


def test_what_is_left_out_of_a_built_in_metric_is_known() -> None:
    primary, guard = experiment().metrics
    assert (primary.kind, primary.better, primary.window_s, primary.rare) == (
        Kind.PROPORTION,
        Better.HIGHER,
        86_400,
        False,
    )
    assert (guard.kind, guard.better, guard.window_s, guard.rare) == (Kind.PROPORTION, Better.LOWER, 600, True)


def test_every_built_in_metric_can_be_declared_and_asks_for_its_columns() -> None:
    metrics = [
        Declared(name=name, role="diagnostic", threshold=800.0 if source.kind is Kind.SHARE_ABOVE else None)
        for name, source in SOURCES.items()
    ]
    test = experiment(metrics=(replace(PRIMARY, name="primary", source="thumbs_up_rate"), *metrics))
    keys = {column.key for column in wanted(test)}
    assert {"first_token_over:800@600", "total_over:800@600", "cost@600", "rated@86400", "requests@0"} <= keys
    assert len(keys) == len(wanted(test))


@pytest.mark.parametrize(
    ("kind", "value", "per"),
    [
        ("proportion", "scalar_sum:clarity@60", "scalar_count:clarity@60"),
        ("ratio", "scalar_sum:clarity@60", "scalar_count:clarity@60"),
        ("mean", "scalar_sum:clarity@60", None),
        ("share_above", "scalar_over:clarity>3@60", "scalar_count:clarity@60"),
    ],
)
def test_a_scalar_of_feedback_is_a_metric_by_its_name(kind: str, value: str, per: str | None) -> None:
    threshold = 3.0 if kind == "share_above" else None
    clear = Declared(
        name="clear", role="primary", source="feedback:clarity", kind=kind, better="higher", window_s=60.0,
        threshold=threshold,
    )  # fmt: skip
    column, divisor = columns(experiment(metrics=(clear,)).primary)
    assert (column.key, divisor.key if divisor else None) == (value, per)


def test_without_a_ramp_the_steps_go_as_far_as_there_is_room() -> None:
    assert [step.share for step in experiment().ramp] == [100, 500, 1000, 2500, 5000]
    assert [step.share for step in experiment(3).ramp] == [100, 500, 1000, 2500, 3333]
    assert [step.share for step in experiment(4, holdout=400).ramp] == [100, 500, 1000, 2400]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wish = definition(
        unit="postcode",
        arms=(Arm(name="a", number=1), Arm(name="a", number=9)),
        ramp=(Step(share=500, at_least_s=1), Step(share=100, at_least_s=1)),
        alpha=1.5,
        metrics=(replace(GUARD, margin=None), replace(PRIMARY, name="charm")),
    )
    with pytest.raises(BadExperiment) as caught:
        opened(wish)
    said = "\n".join(caught.value.reasons)
    for part in ("'postcode'", "stands there twice", "version 9 is not verified", "[500, 100]", "alpha: 1.5"):
        assert part in said
    assert "needs a margin" in said
    assert "'charm' is not built in" in said
    assert len(caught.value.reasons) == 7
    assert all(reason in str(caught.value) for reason in caught.value.reasons)


ONE = (Arm(name="a", number=1),)
STEP = Step(share=100, at_least_s=1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ONE}, "1 were given"),
        ({"arms": (*ONE, Arm(name="b", number=1))}, "version 1 is in two arms"),
        ({"arms": (Arm(name="b", number=2), *ONE)}, "must be version 1"),
        ({"arms": (*ONE, Arm(name="B!", number=2))}, "is no name"),
        ({"selftest": True}, "two arms of one version"),
        ({"shadow": Arm(name="dark", number=9)}, "version 9 is not verified"),
        ({"shadow": Arm(name="dark", number=2)}, "is an arm already"),
        ({"ramp": ()}, "0 steps"),
        ({"ramp": (replace(STEP, share=5001),)}, "room for 1 to 5000"),
        ({"ramp": (replace(STEP, share=4001),), "holdout": 2000}, "room for 1 to 4000"),
        ({"ramp": (replace(STEP, share=0),)}, "room for 1"),
        ({"ramp": (STEP, STEP)}, "must be above the one before"),
        ({"ramp": (replace(STEP, at_least_s=math.nan),)}, "0 s or longer"),
        ({"holdout": 6000}, "can be held out"),
        ({"alpha": math.nan}, "alpha: nan"),
        ({"alpha": 0.0}, "alpha: 0"),
        ({"guard_alpha": 1.0}, "guard_alpha"),
        ({"horizon": 10}, "horizon: 10"),
        ({"promote_after_s": math.inf}, "promote_after_s"),
        ({"ask_s": 1.0}, "ask_s"),
        ({"ask_before": ("roll_back",)}, "Rolling back never waits"),
        ({"metrics": ()}, "0 are primary"),
        ({"metrics": (PRIMARY, replace(PRIMARY, name="response_rate"))}, "2 are primary"),
        ({"metrics": (PRIMARY, GUARD, GUARD)}, "stands there twice"),
        ({"metrics": (PRIMARY, *(replace(GUARD, name=f"m{n}", source="cost") for n in range(40)))}, "40 at most"),
        ({"metrics": (PRIMARY, replace(GUARD, margin=math.nan))}, "margin nan"),
        ({"metrics": (PRIMARY, replace(GUARD, margin=-0.1))}, "margin -0.1"),
        ({"metrics": (replace(PRIMARY, margin=0.1),)}, "only a guardrail has a margin"),
        ({"metrics": (PRIMARY, replace(GUARD, window_s=0.0))}, "window_s 0"),
        ({"metrics": (PRIMARY, replace(GUARD, window_s=math.nan))}, "window_s nan"),
        ({"metrics": (PRIMARY, replace(GUARD, threshold=3.0))}, "only a share above has a threshold"),
        ({"metrics": (PRIMARY, replace(GUARD, name="total_over"))}, "needs the threshold"),
        ({"metrics": (PRIMARY, replace(GUARD, name="total_over", threshold=math.inf))}, "needs the threshold"),
        ({"metrics": (PRIMARY, replace(GUARD, kind="mean"))}, "error_rate is a proportion"),
        ({"metrics": (PRIMARY, replace(GUARD, better="higher"))}, "error_rate is better lower"),
        ({"metrics": (PRIMARY, replace(GUARD, role="judge"))}, "role 'judge'"),
        ({"metrics": (PRIMARY, replace(GUARD, part="best"))}, "part 'best'"),
        ({"metrics": (PRIMARY, replace(GUARD, part="worst"))}, "only a guardrail with slices"),
        ({"metrics": (PRIMARY, replace(GUARD, slices=("a", "a")))}, "different metadata keys"),
        ({"metrics": (PRIMARY, replace(GUARD, name="No Name", source="cost"))}, "no name"),
        ({"metrics": (replace(PRIMARY, source="feedback:"),)}, "names no scalar feedback"),
        ({"metrics": (replace(PRIMARY, source="feedback:x", kind="sum", better="up"),)}, "kind 'sum'"),
        ({"metrics": (replace(PRIMARY, source="feedback:x", kind="mean", better="up"),)}, "better 'up'"),
        ({"adaptive": Adaptive(), "unit": "request"}, "three arms or more"),
    ],
)
def test_a_definition_that_cannot_be_run_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadExperiment) as caught:
        opened(definition(**changes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adaptive": Adaptive(floor=0.34)}, "below 1/3"),
        ({"adaptive": Adaptive(floor=0.0)}, "above 0"),
        ({"adaptive": Adaptive(epoch_s=1.0)}, "epoch_s"),
        ({"unit": "user"}, "request or conversation"),
        ({"metrics": (replace(PRIMARY, name="thumbs_rate"),)}, "cannot be primary"),
        ({"metrics": (PRIMARY, replace(GUARD, name="output_length"))}, "ratio of sums"),
    ],
)
def test_an_adaptive_definition_that_cannot_be_run_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadExperiment) as caught:
        adaptive(**changes)
    assert said in str(caught.value)


def test_what_is_opened_has_what_was_asked_for() -> None:
    test = opened(definition(ask_before=("promote", "ramp"), shadow=Arm(name="dark", number=3), note="try"))
    assert test.ask_before == (Verdict.PROMOTE, Verdict.RAMP)
    assert test.shadow == Arm(name="dark", number=3)
    assert (test.opened_at, test.step_since, test.opened_by, test.note) == (NOW, NOW, "ann", "try")
    assert [epoch.shares for epoch in adaptive().epochs] == [pytest.approx((1 / 3,) * 3, abs=0.02)]
    twin = opened(definition(arms=(*ONE, Arm(name="same", number=1)), selftest=True))
    assert twin.selftest
