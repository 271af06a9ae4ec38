"""A look carried out: the alias moves, people are asked, and whoever is killed in between is followed by another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from adapters.errors import Conflict, GateClosed, NotFound
from adapters.experiments import runner
from adapters.experiments.errors import ExperimentConflict, ExperimentOver
from adapters.experiments.metrics import UnitTable
from adapters.experiments.store import MemoryExperiments
from adapters.experiments.turns import Turn
from adapters.experiments.values import Answer, Arm, Experiment, Ruling, Stage, Step, Verdict
from adapters.lifecycle import State
from adapters.values import Alias, Version
from tests.unit.adapters.experiments.worlds import DAY, HALF, NOW, adaptive, experiment, table


class Killed(Exception):
    """The process ended here."""


@dataclass
class Registry:
    """One adapter whose alias points at version 1; `states` of the others."""

    points_at: int | None = 1
    states: dict[int, State] = field(default_factory=dict)
    refuses: Exception | None = None
    before: Callable[[], None] = lambda: None

    def resolve_name(self, model: str) -> Version:
        self.before()
        number = int(model.partition(":")[2]) if ":" in model else self.points_at
        if number is None:
            raise NotFound("gone")
        return Version(
            id="v", name="support", number=number, digest="d", state=self.states.get(number, State.VERIFIED),
            created_at=0.0, created_by="", base_digest="", rank=1, alpha=1.0, bytes=1, coverage="",
        )  # fmt: skip

    def promote(self, name: str, number: int, *, alias: str, expected: int, who: str, why: str) -> Alias:
        self.before()
        if self.refuses:
            raise self.refuses
        if self.points_at != expected:
            raise Conflict("somebody moved it")
        self.points_at = number
        self.before()
        return Alias(
            name=name, alias=alias, number=number, previous=expected, revision=2, on_unavailable="fail", moved_by=who,
            moved_at=NOW, why=why,
        )  # fmt: skip


class Fragile(MemoryExperiments):
    """A store that calls `before` around each write."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def take(self, turn: Turn) -> Experiment:
        self.before()
        after = super().take(turn)
        self.before()
        return after


@dataclass
class House:
    test: Experiment
    store: Fragile = field(default_factory=Fragile)
    registry: Registry = field(default_factory=Registry)

    def __post_init__(self) -> None:
        self.store.open(self.test)

    def step(self, seen: UnitTable | None, *, now: float = NOW, **given: Any) -> Ruling:
        return runner.step(self.test.id, seen, now=now, store=self.store, registry=self.registry, **given)

    def now(self) -> Experiment:
        return self.store.get(self.test.id)


def good(test: Experiment) -> UnitTable:
    return table(test, units=3000, good=(0.4, 0.6))


def bad(test: Experiment) -> UnitTable:
    return table(test, bad=(0.01, 0.4))


def test_a_winner_becomes_what_the_alias_points_at() -> None:
    house = House(experiment(ramp=HALF))
    ruling = house.step(good(house.test))
    assert (ruling.verdict, ruling.arm, house.registry.points_at) == (Verdict.PROMOTE, "arm1", 2)
    assert (house.now().stage, house.now().chosen, house.now().ended_at) == (Stage.PROMOTED, "arm1", NOW)
    done, decided, _ = house.store.rulings("exp-1")
    assert done.reasons == ("support@live points at version 2",)
    assert decided.numbers["estimates"][0]["lower"] > 0.1
    assert decided.numbers["units"].keys() == {"arm0", "arm1"}
    with pytest.raises(ExperimentOver):
        house.step(good(house.test))


def test_a_bad_treatment_is_rolled_back_and_the_alias_stays() -> None:
    house = House(experiment(ramp=HALF))
    assert house.step(bad(house.test)).verdict is Verdict.ROLL_BACK
    assert (house.now().stage, house.registry.points_at) == (Stage.ROLLED_BACK, 1)


@pytest.mark.parametrize("kill_at", range(1, 9))
@pytest.mark.parametrize("make", [good, bad])
def test_whoever_is_killed_between_any_two_steps_is_followed_by_another(
    kill_at: int, make: Callable[[Experiment], UnitTable]
) -> None:
    house = House(experiment(ramp=HALF))
    calls = 0

    def dies() -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed

    house.store.before = house.registry.before = dies
    for _ in range(3):
        try:
            house.step(make(house.test))
        except (Killed, ExperimentOver):
            continue
    end, there = (Stage.PROMOTED, 2) if make is good else (Stage.ROLLED_BACK, 1)
    assert (house.now().stage, house.registry.points_at) == (end, there)
    verdicts = [ruling.verdict for ruling in house.store.rulings("exp-1")]
    assert verdicts.count(Verdict.ROLL_BACK) == (make is bad)


def test_a_person_who_moves_the_alias_wins() -> None:
    house = House(experiment(ramp=HALF))
    house.registry.points_at = 9
    ruling = house.step(good(house.test))
    assert (ruling.verdict, house.now().stage, house.registry.points_at) == (Verdict.STOP, Stage.STOPPED, 9)
    assert "somebody moved the alias" in ruling.reasons[0]
    gone = House(experiment(ramp=HALF))
    gone.registry.points_at = None
    assert "is gone" in gone.step(good(gone.test)).reasons[0]


def test_a_person_who_moves_the_alias_while_it_is_being_promoted_wins() -> None:
    house = House(experiment(ramp=HALF))

    def moves() -> None:
        if house.now().stage is Stage.PROMOTING:
            house.registry.points_at = 9

    house.registry.before = moves
    assert house.step(good(house.test)).verdict is Verdict.STOP
    assert house.registry.points_at == 9


def test_a_closed_gate_goes_on_running_and_says_so() -> None:
    house = House(experiment(ramp=HALF))
    house.registry.refuses = GateClosed("not evaluated")
    ruling = house.step(good(house.test))
    assert (ruling.verdict, ruling.reasons, house.now().stage) == (Verdict.HOLD, ("not evaluated",), Stage.RUNNING)
    house.registry.refuses = None
    assert house.step(good(house.test)).verdict is Verdict.PROMOTE


def test_a_version_that_may_not_serve_any_more_ends_the_experiment() -> None:
    house = House(experiment(ramp=HALF))
    house.registry.states[2] = State.REJECTED
    assert house.step(None).verdict is Verdict.ROLL_BACK
    assert "version 2 is rejected" in house.store.rulings("exp-1")[0].reasons[0]


def test_records_that_cannot_be_had_or_read_hold() -> None:
    house = House(experiment(ramp=HALF))
    assert house.step(None).reasons == ("there are no records to look at",)
    assert house.step(None, broken=("the spool is full",)).reasons == ("the spool is full",)
    assert "cannot be analysed" in house.step(replace(good(house.test), sums={})).reasons[0]
    assert house.now().turn == 3


def test_the_ramp_is_taken_and_the_evidence_of_a_mismatch_is_kept() -> None:
    house = House(experiment())
    even = table(house.test, units=500)
    assert house.step(even, now=NOW + 3600).verdict is Verdict.RAMP
    assert (house.now().step, house.now().step_since) == (1, NOW + 3600)
    seen = good(house.test)
    seen.arm[:1000] = 0
    assert house.step(seen).verdict is Verdict.HOLD
    assert house.now().srm > 7
    assert house.step(good(house.test)).verdict is Verdict.HOLD  # for good


def test_a_failed_final_check_holds_for_good() -> None:
    house = House(experiment(ramp=HALF))
    seen = table(house.test, units=8000, good=(0.4, 0.6))
    treated = (seen.arm == 1).nonzero()[0]
    seen.arm[treated[: 150 + int((seen.arm == 1).sum() - 4000)]] = 0
    assert "final check" in house.step(seen).reasons[0]
    assert "mismatch" in house.step(good(house.test)).reasons[0]


def test_promotion_waits_for_a_person_and_follows_the_answer() -> None:
    house = House(experiment(ramp=HALF, ask_before=("promote",)))
    assert house.step(good(house.test)).verdict is Verdict.HOLD
    (proposal,) = house.store.proposals("exp-1", open_only=True)
    assert (proposal.verdict, proposal.arm, proposal.role) == (Verdict.PROMOTE, "arm1", "engineer")
    assert "waits for the approval" in house.step(good(house.test)).reasons[-1]
    house.store.answer(proposal.id, Answer.APPROVED, who="bob", why="ship it", now=NOW)
    # a look that shows less by now does not take back what was shown and approved
    assert house.step(table(house.test)).verdict is Verdict.PROMOTE
    assert house.registry.points_at == 2
    (done,) = house.store.proposals("exp-1")
    assert (done.answer, done.decided_by) == (Answer.DONE, "bob")
    assert "approved by bob: ship it" in house.store.rulings("exp-1")[1].reasons


def test_an_approval_is_not_followed_when_a_guardrail_is_breached_meanwhile() -> None:
    house = House(experiment(ramp=HALF, ask_before=("promote",)))
    house.step(good(house.test))
    (proposal,) = house.store.proposals("exp-1")
    house.store.answer(proposal.id, Answer.APPROVED, who="bob", why="", now=NOW)
    assert house.step(None).verdict is Verdict.HOLD  # nothing can be trusted: it waits
    assert house.step(bad(house.test)).verdict is Verdict.ROLL_BACK
    assert house.store.proposals("exp-1")[0].answer is Answer.WITHDRAWN


def test_a_rejection_stands_until_the_proposal_would_have_expired() -> None:
    house = House(experiment(ramp=HALF, ask_before=("promote",)))
    house.step(good(house.test))
    (proposal,) = house.store.proposals("exp-1")
    house.store.answer(proposal.id, Answer.REJECTED, who="bob", why="not now", now=NOW)
    assert "rejected by bob" in house.step(good(house.test), now=NOW + 60).reasons[-1]
    house.step(good(house.test), now=NOW + DAY)
    assert [each.answer for each in house.store.proposals("exp-1")] == [Answer.PENDING, Answer.REJECTED]


def test_a_proposal_that_nobody_answers_expires_and_is_made_anew() -> None:
    house = House(experiment(ramp=HALF, ask_before=("promote",)))
    house.step(good(house.test))
    house.step(good(house.test), now=NOW + DAY)
    assert [each.answer for each in house.store.proposals("exp-1")] == [Answer.PENDING, Answer.EXPIRED]


def test_a_step_of_the_ramp_can_be_asked_for_too_and_gives_way_to_a_promotion() -> None:
    house = House(experiment(ask_before=("ramp", "promote")))
    even = table(house.test, units=500)
    house.step(even, now=NOW + 3600)
    (first,) = house.store.proposals("exp-1")
    house.store.answer(first.id, Answer.APPROVED, who="bob", why="", now=NOW + 3600)
    assert house.step(even, now=NOW + 3601).verdict is Verdict.RAMP
    assert house.now().step == 1
    house.step(even, now=NOW + 9000)
    house.step(good(house.test), now=NOW + 9001)
    found = house.store.proposals("exp-1")
    assert [each.verdict for each in found] == [Verdict.PROMOTE, Verdict.RAMP, Verdict.RAMP]
    assert [each.answer for each in found] == [Answer.PENDING, Answer.WITHDRAWN, Answer.DONE]


def test_a_breached_arm_of_several_is_dropped_and_the_others_go_on() -> None:
    house = House(experiment(3, ramp=(Step(share=3333, at_least_s=0.0),)))
    seen = table(house.test, units=6000, good=(0.4, 0.4, 0.6), bad=(0.01, 0.4, 0.01))
    assert house.step(seen).verdict is Verdict.DROP
    assert house.now().dropped == ("arm1",)
    assert house.step(seen).verdict is Verdict.PROMOTE
    assert house.registry.points_at == 3


def test_an_adaptive_experiment_begins_an_epoch_when_it_is_time() -> None:
    test = adaptive(now=NOW - 30 * DAY)
    house = House(test)
    seen = table(test, units=600, good=(0.5, 0.5, 0.53), bad=(0.01,) * 3)
    own = replace(seen, propensity=np.full(seen.size, 1 / 3))
    assert house.step(own).verdict is Verdict.HOLD
    before, after = house.now().epochs
    assert after.since == NOW
    assert after.shares[2] > before.shares[2]
    assert sum(after.shares) == pytest.approx(1.0)
    house.step(own, now=NOW + 60)
    assert len(house.now().epochs) == 2


def test_a_self_test_never_ends() -> None:
    same = (Arm(name="arm0", number=1), Arm(name="arm1", number=1))
    house = House(experiment(arms=same, selftest=True, ramp=HALF))
    assert house.step(good(house.test)).reasons[0].startswith("self-test alarm")
    assert house.now().stage is Stage.RUNNING


def test_a_person_stops_it_even_when_a_look_comes_between() -> None:
    house = House(experiment(ramp=HALF))
    looked = False

    def looks() -> None:
        nonlocal looked
        if not looked:
            looked = True
            house.step(None)

    house.store.before = looks
    after = runner.stop("exp-1", who="bob", why="lunch", now=NOW, store=house.store)
    assert (after.stage, after.turn) == (Stage.STOPPED, 2)
    assert house.store.rulings("exp-1")[0].who == "bob"
    with pytest.raises(ExperimentOver):
        runner.stop("exp-1", who="bob", why="", now=NOW, store=house.store)


def test_of_two_workers_one_takes_the_turn() -> None:
    house = House(experiment(ramp=HALF))
    stale = Turn(
        after=house.now(), ruling=Ruling(experiment="exp-1", at=NOW, verdict=Verdict.HOLD, reasons=(), who="w")
    )
    house.step(None)
    with pytest.raises(ExperimentConflict, match="turn 1"):
        house.store.take(stale)


def test_a_proposal_for_an_arm_that_was_dropped_is_withdrawn() -> None:
    house = House(experiment(3, ramp=(Step(share=3333, at_least_s=0.0),), ask_before=("promote",)))
    rates = (0.4, 0.6, 0.4)
    house.step(table(house.test, units=9000, good=rates, bad=(0.01,) * 3))
    (proposal,) = house.store.proposals("exp-1")
    assert proposal.arm == "arm1"
    worse = table(house.test, units=9000, good=rates, bad=(0.01, 0.4, 0.01))
    assert house.step(worse).verdict is Verdict.DROP
    house.step(worse)
    assert house.store.proposals("exp-1")[0].answer is Answer.WITHDRAWN


def test_an_adaptive_experiment_begins_an_epoch_with_each_step_and_each_dropped_arm() -> None:
    steps = (Step(share=1000, at_least_s=0.0), Step(share=3333, at_least_s=0.0))
    test = adaptive(now=NOW, ramp=steps)
    house = House(test)
    assert house.step(
        replace(table(test, units=0, good=(0.5,) * 3, bad=(0.01,) * 3), propensity=np.ones(0))
    ).verdict is (Verdict.RAMP)
    house.registry.states[2] = State.RETIRED
    assert house.step(None).verdict is Verdict.DROP
    assert len(house.now().epochs) == 3
    assert house.now().epochs[-1].shares[1] == 0.0


def test_an_approved_step_that_was_taken_already_is_not_taken_twice() -> None:
    house = House(experiment(ask_before=("ramp",)))
    even = table(house.test, units=500)
    house.step(even, now=NOW + 3600)
    (first,) = house.store.proposals("exp-1")
    house.store.answer(first.id, Answer.APPROVED, who="bob", why="", now=NOW + 3600)
    house.step(even, now=NOW + 3601)
    assert house.now().step == 1
    assert house.step(even, now=NOW + 3602).verdict is Verdict.HOLD
    assert house.now().step == 1


def test_another_worker_that_was_faster_with_the_alias_is_no_conflict() -> None:
    house = House(experiment(ramp=HALF))

    def other() -> None:
        if house.now().stage is Stage.PROMOTING and not raced:
            raced.append(True)
        elif raced:
            house.registry.points_at = 2

    raced: list[bool] = []
    house.registry.before = other
    assert house.step(good(house.test)).verdict is Verdict.PROMOTE
    assert house.now().stage is Stage.PROMOTED
