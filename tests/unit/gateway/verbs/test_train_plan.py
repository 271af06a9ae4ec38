"""What a plan says of memory, tokens, time and cost."""

from __future__ import annotations

from dataclasses import replace

from gateway.verbs.train_plan import lines
from training.launchers.section import Launch
from training.recipes.progress import Planned, as_fields, from_fields

PLAN = Planned(
    memory={"optimizer": 2_000_000, "base weights": 3_000_000_000},
    estimated={"base weights": 2_900_000_000},
    rows=10,
    steps=100,
    tokens=123_456,
    tokens_per_s=1000.0,
    step_s=1.25,
    seconds=7200.0,
    probed_steps=6,
)


def test_memory_is_told_by_part_from_the_largest_down_with_time_and_cost() -> None:
    said = list(lines(PLAN, cost_per_hour=2.5, launch=Launch()))
    assert said[0] == "memory at the peak: 3.00 GB, measured over 6 steps here"
    assert [line.split(maxsplit=2)[2] for line in said[1:3]] == ["base weights", "optimizer"]
    assert "tokens: 123,456 in 100 steps, 1,000 a second" in said
    assert "time: 2.0 h, 1.25 s a step" in said
    assert said[-1] == "cost: 5 at 2.5 an hour"


def test_a_price_that_nobody_gave_is_asked_for_and_processes_are_told_of() -> None:
    said = list(lines(replace(PLAN, seconds=60.0), cost_per_hour=None, launch=Launch(processes=4, sharding="fsdp")))
    assert "time: 60 s, 1.25 s a step" in said
    assert "set cost_per_hour" in said[-2]
    assert said[-1].endswith("will have 4, each with a part of the weights.")


def test_a_plan_is_an_event_like_any_other() -> None:
    assert from_fields(as_fields(PLAN)) == PLAN
