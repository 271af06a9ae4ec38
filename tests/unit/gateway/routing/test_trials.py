"""Which arm a request is in."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from adapters.experiments.definition import Declared, Definition, made
from adapters.experiments.values import Arm, Experiment, Step
from adapters.lifecycle import State
from gateway.access.errors import Forbidden
from gateway.access.identify import Keyring
from gateway.access.keys import Key, mint
from gateway.api.openai.fields import Bounds
from gateway.api.openai.parse import Head, parse
from gateway.errors import BadField
from gateway.routing.snapshot import Snapshot, build
from gateway.routing.trials import Met, meet, pinned
from gateway.values import Call
from tests.unit.gateway.rows import alias, version

HALF = (Step(share=5000, at_least_s=0.0),)


def experiment(**changes: Any) -> Experiment:
    wish: dict[str, Any] = {
        "name": "support",
        "alias": "live",
        "arms": (Arm(name="control", number=1), Arm(name="new", number=2)),
        "metrics": (Declared(name="thumbs_rate", role="primary"),),
        "ramp": HALF,
    }
    wish |= changes
    return made(Definition(**wish), id_="e1", salt="salt", who="t", now=0.0, verified=lambda _: True, points_at=1)


def snapshot(trial: Experiment, *, live: int = 1, states: tuple[State, ...] = (State.VERIFIED,) * 3) -> Snapshot:
    return build(
        revision=7,
        base_name="tidewell",
        base_created=1,
        keyring=Keyring([]),
        versions=[version(number, state) for number, state in enumerate(states, start=1)],
        aliases=[alias(live), alias(1, to="other")],
        residents={},
        experiments=[trial],
    )


def key(tenant: str = "acme", role: str = "user") -> Key:
    return mint(tenant=tenant, name="k", roles=[role], now=1.0)[1]


CALLER = key()


def asked(
    user: str = "", *, conversation: str = "", text: str = "hi", head_conversation: str = "", retry_count: int = 0
) -> tuple[Call, bytes]:
    body: dict[str, Any] = {"model": "support", "messages": [{"role": "user", "content": text}]}
    if user:
        body["user"] = user
    if conversation:
        body["metadata"] = {"conversation_id": conversation}
    raw = orjson.dumps(body)
    return parse("chat", raw, Head(conversation=head_conversation, retry_count=retry_count), "r", Bounds(), ()), raw


def met(trial: Experiment, user: str = "", *, by: Key = CALLER, **said: Any) -> Met | None:
    return meet(snapshot(trial).running["support"], by, *asked(user, **said))


def test_an_experiment_is_met_by_each_spelling_of_its_alias_and_by_no_other() -> None:
    assert set(snapshot(experiment()).running) == {"support", "support@live"}


def test_both_arms_are_wanted_on_the_engines() -> None:
    assert {name[-1] for name in snapshot(experiment()).wanted} == {"1", "2"}


def test_each_arm_keeps_a_slot_for_itself() -> None:
    found = snapshot(experiment(shadow=Arm(name="dark", number=3)))
    assert {name[-1] for name in found.pinned.values()} == {"1", "2", "3"}
    trial = found.running["support"]
    assert trial.shadow is not None
    assert all(target.pinned for target in (*trial.targets.values(), trial.shadow))
    assert not snapshot(experiment(), live=3).pinned


def test_a_unit_keeps_its_arm_and_the_arms_are_equally_large() -> None:
    trial = experiment()
    arms = [met(trial, f"user-{n}") for n in range(2000)]
    assert [each and each.assigned.arm.name for each in arms] == [
        each and each.assigned.arm.name for each in (met(trial, f"user-{n}") for n in range(2000))
    ]
    new = sum(each.assigned.arm.name == "new" for each in arms if each)
    assert 850 < new < 1150
    assert all(arms)


def test_outside_of_the_share_nothing_is_met() -> None:
    trial = experiment(ramp=(Step(share=100, at_least_s=0.0),))
    arms = [met(trial, f"user-{n}") for n in range(2000)]
    assert 10 < sum(each is not None for each in arms) < 90


def test_an_arm_is_served_its_version_and_falls_back_on_the_control() -> None:
    found = snapshot(experiment())
    served, new = found.targets["support"], found.running["support"].targets["new"]
    assert found.running["support"].targets["control"] is served
    assert new.adapter == "support:2"
    assert (new.on_unavailable, new.previous) == ("previous", served)


def test_an_arm_that_may_not_serve_any_more_is_answered_for_by_the_control() -> None:
    found = snapshot(experiment(), states=(State.VERIFIED, State.REJECTED, State.VERIFIED))
    assert found.running["support"].targets["new"] is found.targets["support"]


def test_an_experiment_whose_alias_was_moved_is_over() -> None:
    assert not snapshot(experiment(), live=3).running


def test_users_of_two_tenants_are_two_users() -> None:
    trial = experiment()
    ours = [met(trial, f"user-{n}", by=key("a")) for n in range(50)]
    theirs = [met(trial, f"user-{n}", by=key("b")) for n in range(50)]
    assert [each and each.bucket for each in ours] != [each and each.bucket for each in theirs]


def test_who_names_no_unit_is_served_as_the_alias_says_and_not_analysed() -> None:
    found = met(experiment())
    assert found is not None
    assert not found.analysed
    assert found.kind == "request"
    assert found.target.adapter == "support:1"


def test_a_conversation_is_a_unit_by_metadata_or_head() -> None:
    trial = experiment(unit="conversation")
    by_body, by_head, without = (
        met(trial, conversation="c1"),
        meet(snapshot(trial).running["support"], CALLER, *asked(head_conversation="c1")),
        met(trial, "user-1"),
    )
    assert by_body is not None
    assert by_head is not None
    assert without is not None
    assert by_body.analysed
    assert (by_body.bucket, by_body.unit) == (by_head.bucket, by_head.unit)
    assert not without.analysed


def test_what_an_sdk_sends_again_meets_the_same_arm_where_each_request_is_a_unit() -> None:
    trial = experiment(unit="request")
    for n in range(50):
        first, again = met(trial, text=f"q{n}"), met(trial, text=f"q{n}", retry_count=1)
        assert first is not None
        assert again is not None
        assert (first.unit, first.assigned) == (again.unit, again.assigned)


def test_an_arm_can_be_asked_for_by_engineers_only() -> None:
    found = snapshot(experiment()).running["support"]
    engineer = key(role="engineer")
    assert pinned(found, engineer, "new").adapter == "support:2"
    with pytest.raises(Forbidden):
        pinned(found, CALLER, "new")
    with pytest.raises(BadField, match="no arm"):
        pinned(found, engineer, "newer")
    with pytest.raises(BadField, match="no experiment"):
        pinned(None, engineer, "new")


def test_a_shadow_arm_can_be_asked_for_and_answers_nobody_else() -> None:
    trial = experiment(shadow=Arm(name="dark", number=3))
    found = snapshot(trial).running["support"]
    assert pinned(found, key(role="engineer"), "dark").adapter == "support:3"
    arms = [met(trial, f"user-{n}") for n in range(500)]
    assert {each.target.adapter for each in arms if each} == {"support:1", "support:2"}
