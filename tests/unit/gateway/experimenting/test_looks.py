"""The worker looks, and what follows happens: one slow or broken experiment keeps no other from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.experiments.values import Experiment, Stage, Verdict
from adapters.lifecycle import State
from gateway.experimenting.flow import Flow
from gateway.experimenting.gauges import Gauges
from gateway.experimenting.looks import SLOW_S, Looks
from gateway.experimenting.tables import counted, table
from monitoring.records.errors import StoreAway
from monitoring.records.joins import Trial
from monitoring.records.store import MemoryRecords
from monitoring.telemetry.render import render
from monitoring.telemetry.shared import Metrics
from tests.unit.gateway.experimenting.hall import NOW, Hall, visits


@dataclass
class Watched(MemoryRecords):
    """Records that may be away, or take their time over one experiment."""

    away: bool = False
    slow: str = ""
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def trial(self, experiment: str) -> Trial:
        self.asked.append(experiment)
        if self.away:
            raise StoreAway("The records database cannot be used now.")
        if experiment == self.slow:
            self.gate.wait(10)
        return super().trial(experiment)


@dataclass
class World:
    folder: Path
    hall: Hall = field(default_factory=Hall)
    records: Watched = field(default_factory=Watched)
    now: float = NOW
    mono: float = 0.0
    lost: float = 0.0

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.folder / "metrics", "worker")
        registry: Any = self.hall.rows
        flow = Flow(self.folder, self.folder / "memory.json", lambda: self.lost, mono=lambda: self.mono)
        self.looks = Looks(
            self.hall.experiments,
            registry,
            self.records,
            flow,
            Gauges(self.metrics),
            patience_s=0.2,
            clock=lambda: self.now,
            mono=lambda: self.mono,
        )

    def close(self) -> None:
        self.looks.close()
        self.metrics.close()

    def open(self, **changes: Any) -> Experiment:
        return self.hall.open(**changes)

    def visited(self, test: Experiment, **rates: Any) -> None:
        self.records.ingest("f", 1, list(visits(test, **rates)))

    def verdicts(self, test: Experiment) -> list[Verdict]:
        return [ruling.verdict for ruling in self.hall.experiments.rulings(test.id)]

    def metric(self, start: str) -> float:
        (line,) = [each for each in render(self.folder / "metrics").decode().splitlines() if each.startswith(start)]
        return float(line.rpartition(" ")[2])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    found.records.gate.set()
    found.close()


async def test_a_better_arm_is_promoted_by_itself(world: World) -> None:
    test = world.open()
    world.visited(test, up=(0.2, 0.8))
    world.now += 10
    await world.looks.step()
    assert world.hall.experiments.get(test.id).stage is Stage.PROMOTED
    assert world.hall.rows.live == 2
    assert world.metric('graftline_experiment_stage{alias="support@live",stage="promoted"}') == 1
    await world.looks.step()
    assert world.metric('graftline_experiment_stage{alias="support@live",stage="promoted"}') == 0


async def test_a_harmful_arm_is_rolled_back_by_itself(world: World) -> None:
    test = world.open()
    world.visited(test, failed=(0.0, 0.9))
    world.now += 10
    await world.looks.step()
    assert world.verdicts(test) == [Verdict.ROLL_BACK, Verdict.OPEN]
    assert world.hall.rows.live == 1


async def test_a_treatment_that_was_withdrawn_is_rolled_back_without_any_number(world: World) -> None:
    test = world.open()
    world.hall.rows.versions[2] = State.REJECTED
    await world.looks.step()
    assert world.hall.experiments.get(test.id).stage is Stage.ROLLED_BACK


async def test_while_the_records_are_away_it_holds_and_says_so(world: World) -> None:
    test = world.open()
    world.visited(test, up=(0.2, 0.8))
    world.records.away = True
    world.now += 10
    await world.looks.step()
    newest = world.hall.experiments.rulings(test.id)[0]
    assert newest.verdict is Verdict.HOLD
    assert "cannot be used now" in newest.reasons[0]
    assert world.metric('graftline_experiment_broken{alias="support@live"}') == 1
    world.records.away = False
    world.mono += 1
    await world.looks.step()
    assert world.hall.experiments.get(test.id).stage is Stage.PROMOTED


async def test_after_records_were_lost_nothing_is_promoted(world: World) -> None:
    test = world.open()
    await world.looks.step()
    world.lost = 5
    world.visited(test, up=(0.2, 0.8))
    world.now += 10
    await world.looks.step()
    assert world.hall.experiments.rulings(test.id)[0].reasons == ("5 records were lost since the experiment opened",)
    assert world.hall.experiments.get(test.id).stage is Stage.RUNNING


@pytest.mark.slow
async def test_one_that_takes_long_holds_up_no_other_and_is_not_begun_twice(world: World) -> None:
    slow = world.open()
    quick = world.hall.experiments.open(renamed(slow))
    world.records.slow = slow.id
    await world.looks.step()
    await world.looks.step()
    assert world.records.asked.count(slow.id) == 1
    assert world.records.asked.count(quick.id) == 2
    world.mono += SLOW_S + 1
    with pytest.raises(TimeoutError, match=slow.id):
        await world.looks.step()
    world.records.gate.set()
    world.looks._patience_s = 10.0
    await world.looks.step()
    assert world.verdicts(slow) == [Verdict.HOLD, Verdict.OPEN]


async def test_one_that_fails_is_told_of_after_all_others_had_their_turn(world: World) -> None:
    bad = world.open()
    good = world.hall.experiments.open(renamed(bad))

    class Odd(Exception):
        """Nobody foresaw this."""

    def trial(experiment: str) -> Trial:
        if experiment == bad.id:
            raise Odd
        return MemoryRecords.trial(world.records, experiment)

    world.records.trial = trial  # type: ignore[method-assign]
    with pytest.raises(Odd):
        await world.looks.step()
    assert len(world.verdicts(good)) == 2


async def test_an_experiment_rests_for_longer_than_its_look_took(world: World) -> None:
    test = world.open()

    def trial(experiment: str) -> Trial:
        world.mono += 2.0
        world.records.asked.append(experiment)
        return MemoryRecords.trial(world.records, experiment)

    world.records.trial = trial  # type: ignore[method-assign]
    for _ in range(3):
        await world.looks.step()
    assert world.records.asked == [test.id]
    world.mono += 18.0
    await world.looks.step()
    assert len(world.records.asked) == 2


@pytest.mark.parametrize(("lasted_s", "rests_s"), [(100.0, 0.05), (20_000.0, 10.0), (1e7, 60.0)])
async def test_the_longer_a_step_has_lasted_the_less_often_it_is_looked_at(
    lasted_s: float, rests_s: float, world: World
) -> None:
    test = world.open()
    world.now += lasted_s
    await world.looks.step()
    world.mono += rests_s * 0.99
    await world.looks.step()
    assert world.records.asked == [test.id]
    world.mono += rests_s * 0.02
    await world.looks.step()
    assert len(world.records.asked) == 2


async def test_gauges_say_what_is_known_and_are_cleared_when_it_is_over(world: World) -> None:
    test = world.open()
    world.visited(test)
    world.now += 10
    await world.looks.step()
    alias = 'alias="support@live"'
    assert world.metric(f'graftline_experiment_units{{{alias},arm="new"}}') == 200
    assert world.metric(f'graftline_experiment_verdict{{{alias},verdict="hold"}}') == 1
    assert world.metric(f"graftline_experiment_share{{{alias}}}") == 0.5
    assert world.metric(f"graftline_experiment_looked_timestamp_seconds{{{alias}}}") == world.now
    assert world.metric(f"graftline_experiment_srm{{{alias}}}") < 1
    bounds = f'graftline_experiment_bound{{{alias},arm="new",metric="thumbs_up_rate",side='
    assert world.metric(bounds + '"lower"}') < 0 < world.metric(bounds + '"upper"}')
    held = world.hall.experiments.get(test.id)
    world.hall.rows.live = 3
    world.mono += 100
    await world.looks.step()
    assert world.hall.experiments.get(held.id).stage is Stage.STOPPED
    await world.looks.step()
    assert world.metric(f'graftline_experiment_units{{{alias},arm="new"}}') == 0
    assert world.metric(bounds + '"lower"}') != world.metric(bounds + '"lower"}'), "not a number: nothing is known"


def test_what_was_recorded_is_counted_by_arm(world: World) -> None:
    test = world.open()
    world.visited(test, units=40, up=(0.5, 1.0), failed=(0.1, 0.0))
    found = counted(test, world.records.trial(test.id))
    assert found["arms"]["old"] == {
        "units": 20, "exposures": 20, "requests": 20, "retries": 0, "errors": 2, "left": 0, "answered": 18, "rated": 20,
        "thumbs_up": 10, "thumbs_down": 10,
    }  # fmt: skip
    assert found["arms"]["new"]["thumbs_up"] == 20
    assert (found["mixed_units"], found["unnamed"], found["unanswered"], found["unexposed"]) == (0, 0, 0, 0)
    made = table(test, world.records.trial(test.id))
    assert (made.size, made.requests, made.unitless) == (40, 40, 0)
    assert made.sums["thumbs_up@1"].sum() == 30


def renamed(test: Experiment) -> Experiment:
    return replace(test, id="exp-other", alias="live", name="sales")
