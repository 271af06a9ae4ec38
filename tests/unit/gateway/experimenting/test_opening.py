"""What may be opened, what is in the way, and who may answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.errors import NotFound
from adapters.experiments.errors import BadExperiment, ExperimentConflict, ExperimentNotFound, NoSlots, ProposalOver
from adapters.experiments.values import Answer, Proposal, Stage, Step, Verdict
from adapters.lifecycle import State
from gateway.access.errors import Forbidden
from gateway.experimenting.opening import SELFTEST, answer_proposal, stop_experiment
from gateway.experimenting.slots import check_slots, reserved, served
from tests.unit.gateway.experimenting.hall import NOW, Hall, arms, pointing, proposed


def test_what_is_opened_runs_under_an_id_and_a_salt_of_its_own() -> None:
    hall = Hall()
    first = hall.open()
    assert (first.stage, first.opened_by, first.share, first.control.number) == (Stage.RUNNING, "ann", 5000, 1)
    stop_experiment(control(hall), first.id, who="ann", why="done", now=NOW + 1)
    second = hall.open(now=NOW + 2)
    assert first.id != second.id
    assert first.salt != second.salt
    assert [ruling.verdict for ruling in hall.experiments.rulings(first.id)] == [Verdict.STOP, Verdict.OPEN]


def test_every_reason_is_given_at_once() -> None:
    hall = Hall()
    hall.rows.versions[2] = State.CHECKED
    ramp = (Step(share=1000, at_least_s=0.0), Step(share=500, at_least_s=0.0))
    with pytest.raises(BadExperiment) as refusal:
        hall.open(ramp=ramp, ask_role="boss", arms=arms(old=1, new=2, newer=9))
    said = "\n".join(refusal.value.reasons)
    assert "version 2 is not verified" in said
    assert "version 9 is not verified" in said
    assert "ranges only grow" in said
    assert "ask_role: 'boss'; allowed: user, engineer, operator, auditor." in said
    assert len(refusal.value.reasons) == 4


@pytest.mark.parametrize("number", [0, -1, 10**30])
def test_a_number_that_no_version_can_have_is_not_verified(number: int) -> None:
    with pytest.raises(BadExperiment, match="is not verified"):
        Hall().open(arms=arms(old=1, new=number))


def test_an_alias_that_there_is_not_cannot_be_tested_on() -> None:
    with pytest.raises(NotFound):
        Hall().open(alias="nightly")


def test_an_experiment_of_a_person_is_never_pushed_out() -> None:
    hall = Hall()
    first = hall.open()
    with pytest.raises(ExperimentConflict, match=first.id):
        hall.open(who="bob")
    with pytest.raises(ExperimentConflict):
        hall.open(who=SELFTEST)
    assert hall.experiments.get(first.id).active


def test_the_permanent_self_test_makes_way() -> None:
    hall = Hall()
    test = hall.open(who=SELFTEST, arms=arms(a=1, again=1), selftest=True)
    real = hall.open(now=NOW + 1)
    assert hall.experiments.list(active=True) == (real,)
    newest = hall.experiments.rulings(test.id)[0]
    assert (newest.verdict, newest.who, newest.reasons) == (Verdict.STOP, SELFTEST, ("ann tests here now",))


def test_each_arm_takes_a_slot_and_one_is_left_for_all_others() -> None:
    hall = Hall(slots=3)
    first = hall.open()
    hall.rows.pinned = (pointing(7, name="sales", pinned=True),)
    stop_experiment(control(hall), first.id, who="ann", why="", now=NOW)
    with pytest.raises(
        NoSlots, match=r"needs 2 adapter slots on each engine and 1 of 3 can be had: pinned aliases have 1"
    ):
        hall.open()
    assert hall.experiments.list(active=True) == ()
    hall.rows.pinned = (pointing(1, pinned=True),)
    assert hall.open().active, "what the control's alias has already is not counted twice"


def test_arms_of_other_experiments_are_counted_and_dropped_ones_are_not() -> None:
    hall = Hall(slots=6)
    three = hall.open(arms=arms(old=1, new=2, newer=3), ramp=(Step(share=3000, at_least_s=0.0),))
    assert served(three) == {("support", 1), ("support", 2), ("support", 3)}
    other = replace(three, id="other", name="sales")
    with pytest.raises(NoSlots, match=r"needs 3 .* and 2 of 6"):
        check_slots(other, [three], (), 6)
    check_slots(other, [replace(three, dropped=("newer",))], (), 6)
    assert reserved([replace(three, dropped=("newer",)), other]) == served(other) | {("support", 1), ("support", 2)}


def test_a_shadow_arm_takes_a_slot_too() -> None:
    with pytest.raises(NoSlots):
        Hall(slots=3).open(shadow=arms(dark=3)[0])
    assert Hall(slots=4).open(shadow=arms(dark=3)[0]).active


def test_an_answer_needs_the_role_that_the_proposal_asks_for() -> None:
    hall = Hall()
    proposal = proposed(hall, hall.open())
    with pytest.raises(Forbidden, match="operator"):
        answered(hall, proposal, roles={"engineer", "auditor"})
    found = answered(hall, proposal, roles={"operator"})
    assert (found.answer, found.decided_by, found.why) == (Answer.APPROVED, "bob", "looks right")
    with pytest.raises(ProposalOver):
        answered(hall, proposal)
    with pytest.raises(ExperimentNotFound):
        answer_proposal(control(hall), "exp-0.0", Answer.REJECTED, who="bob", why="", now=NOW)


def answered(hall: Hall, proposal: Proposal, roles: set[str] | None = None) -> Proposal:
    return answer_proposal(
        control(hall), proposal.id, Answer.APPROVED, who="bob", why="looks right", now=NOW + 1, roles=roles
    )


def control(hall: Hall) -> Any:
    return hall
