"""A version that our own training made is loaded and proved like any other, and serves only when its gate let it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapters.errors import Reason
from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Version
from adapters.values import Draft, Evidence
from gateway.engines.fleet.probing import Probing
from tests.unit.gateway.engines_pure.yard import Yard, recording

WORSE = Reason(code="gate_failed", field="held.exact", found="0.2", allowed="at least 0.9", advice="Train again.")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def trained(yard: Yard, word: str = "one") -> Version:
    """A checked version of origin training, with what its trainer recorded."""
    made = yard.registered(word, "scratch")
    fields = {name: getattr(made, name) for name in Draft.__slots__}
    draft = replace(Draft(**fields), name="support", origin="training")
    version = yard.store.insert(draft)
    probe = Evidence(
        name="support",
        number=version.number,
        kind="probe",
        at=0.0,
        who="job",
        passed=True,
        subject="trainer",
        body=recording(engine_name(version)).document(),
    )
    yard.store.move("scratch", made.number, State.CHECKED, State.RETIRED, who="t", why="")
    return yard.store.move(
        "support", version.number, State.UPLOADED, State.CHECKED, who="job", why="", evidence=[probe]
    )


async def test_it_is_held_on_every_replica_and_not_admitted_before_it_is_judged(yard: Yard) -> None:
    version = trained(yard)
    await yard.settle()
    name = engine_name(version)
    assert yard.a.held == yard.b.held == {name}
    assert yard.state(version) is State.PROBED
    assert {seen.subject for seen in yard.seen(version, "parity")} == {"a", "b"}
    assert yard.store.aliases() == ()
    yard.registry.judged(version, [], who="gate", body={})
    await yard.settle()
    assert yard.state(version) is State.VERIFIED
    assert [(alias.alias, alias.number) for alias in yard.store.aliases()] == [("candidate", 1)]


async def test_what_its_trainer_recorded_is_what_replicas_are_held_against_and_no_prober_is_asked(yard: Yard) -> None:
    version = trained(yard)
    yard.probing = Probing(None, yard.means, lambda: yard.fleet.view.waiting)
    yard.b.wrong.add(engine_name(version))
    await yard.settle()
    assert yard.prober.asked == []
    assert "parity_mismatch" in yard.codes(version, "parity")


async def test_one_that_fails_its_gate_is_rejected_and_leaves_the_engines(yard: Yard) -> None:
    version = trained(yard)
    await yard.settle()
    assert yard.registry.judged(version, [WORSE], who="gate", body={}).state is State.REJECTED
    yard.now += 100
    await yard.settle()
    assert yard.a.held == yard.b.held == set()
    assert yard.store.aliases() == ()


async def test_uploads_wait_for_nobody(yard: Yard) -> None:
    version = yard.registered("one")
    await yard.settle()
    assert yard.state(version) is State.VERIFIED
