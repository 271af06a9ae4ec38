"""The fleet's loops over engines that are not there: what is probed, loaded, proved, admitted, drained, taken off."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import ProbeAway, Reason, Rejected
from adapters.lifecycle import State
from adapters.registry import engine_name
from gateway.engines.errors import EngineBroke, EngineRefused, EngineUnreachable
from gateway.engines.fleet.book import STRIKES_MAX
from gateway.routing.store import Beat
from tests.unit.gateway.engines_pure.yard import Yard

NAN = Reason(code="not_finite", field="probe", found="NaN", allowed="numbers", advice="train again")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def test_a_new_version_is_probed_elsewhere_then_loaded_and_certified_on_each_replica_then_live(
    yard: Yard,
) -> None:
    version = yard.registered("one")
    await yard.fleet.step()
    assert yard.a.held == set(), "no shared engine sees what nothing probed"
    await yard.settle()
    name = engine_name(version)
    assert yard.state(version) is State.VERIFIED
    assert yard.a.held == yard.b.held == {name}
    assert yard.serving() == {"a": {name}, "b": {name}}
    assert yard.store.alias("support", "live").number == 1
    assert [e.passed for e in yard.seen(version, "probe")] == [True]
    assert {e.subject for e in yard.seen(version, "parity")} == {"a", "b"}
    second = yard.registered("two")
    await yard.settle()
    assert yard.store.alias("support", "live").number == 1
    assert yard.store.alias("support", "candidate").number == second.number


async def test_what_fails_its_first_forward_never_reaches_an_engine_that_serves(yard: Yard) -> None:
    version = yard.registered("one")
    yard.prober.refuses[version.digest] = Rejected([NAN])
    await yard.settle()
    assert yard.state(version) is State.REJECTED
    assert yard.a.loaded == yard.b.loaded == []
    assert yard.codes(version, "probe") == ["not_finite"]


async def test_a_prober_that_is_away_decides_nothing_and_is_asked_again_later(yard: Yard) -> None:
    version = yard.registered("one")
    yard.prober.refuses[version.digest] = ProbeAway("starting")
    await yard.settle()
    assert yard.state(version) is State.CHECKED
    assert len(yard.prober.asked) == 1
    yard.prober.refuses.clear()
    yard.now += 10
    await yard.settle()
    assert yard.state(version) is State.VERIFIED


async def test_what_was_registered_unprobed_is_recorded_by_the_first_engine_and_compared_on_the_second(
    yard: Yard,
) -> None:
    version = yard.registered("one", "support", "unprobed")
    await yard.settle()
    assert yard.state(version) is State.VERIFIED
    assert yard.prober.asked == []
    assert {e.subject for e in yard.seen(version, "parity")} == {"a", "b"}


async def test_an_unprobed_version_of_nans_is_rejected_and_its_engines_are_recycled(yard: Yard) -> None:
    version = yard.registered("one", "support", "unprobed")
    yard.a.nan.add(engine_name(version))
    yard.b.nan.add(engine_name(version))
    await yard.settle(2)
    assert yard.state(version) is State.REJECTED
    assert {replica for replica, _, why in yard.asked_to_restart if why == "nan"} == {"a", "b"}


async def test_a_version_that_no_replica_serves_as_recorded_is_rejected(yard: Yard) -> None:
    version = yard.registered("one")
    yard.a.wrong.add(engine_name(version))
    yard.b.wrong.add(engine_name(version))
    await yard.settle()
    assert yard.state(version) is State.REJECTED
    assert yard.store.get("support", 1).reasons[0].code == "parity_mismatch"
    assert yard.a.held == yard.b.held == set()
    assert yard.rows.out() == {}


async def test_a_version_that_differs_only_in_the_logprobs_of_prompts_is_certified(yard: Yard) -> None:
    """As one does that adapts the head: what is sampled is right, and vLLM gives its prompts without the update."""
    version = yard.registered("one")
    for engine in (yard.a, yard.b):
        engine.wrong.add(engine_name(version))
        engine.wrong_in_prompts.add(engine_name(version))
    await yard.settle()
    assert yard.state(version) is State.VERIFIED


async def test_a_replica_that_differs_where_another_certifies_is_taken_out_not_the_version(yard: Yard) -> None:
    first = await yard.verified("one")
    yard.b.wrong.add(engine_name(first))
    await yard.patrol.step()
    await yard.patrol.step()
    assert yard.state(first) is State.VERIFIED
    assert yard.rows.out()["b"].why.startswith("differs: support:1")
    await yard.fleet.step()
    assert yard.asked_to_restart == [("b", 100.0, "differs")]
    assert [what[0] for what in yard.tainted] == ["b"]
    yard.b.restart()
    await yard.settle()
    assert yard.rows.out() == {}
    assert yard.serving().keys() == {"a", "b"}


async def test_an_engine_that_dies_while_it_loads_two_blames_neither_until_one_kills_it_alone(yard: Yard) -> None:
    versions = [await yard.verified(word) for word in ("one", "two", "three", "four", "five")]
    deadly = engine_name(versions[1])  # live and the newest are asked for first, each alone
    yard.b.restart()
    yard.b.deadly.add(deadly)
    await yard.settle(1)
    assert not yard.b.alive
    assert not any(yard.seen(version, "strike") for version in versions)
    for _ in range(STRIKES_MAX):
        yard.b.restart()
        await yard.settle(3)
    yard.b.restart()
    await yard.settle(3)
    assert [len(yard.seen(version, "strike")) for version in versions] == [0, STRIKES_MAX, 0, 0, 0]
    assert yard.serving()["b"] == {engine_name(v) for v in versions if v is not versions[1]}


async def test_a_restarted_engine_whose_base_differs_serves_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await yard.verified("one")
    yard.b.restart()
    yard.b.wrong.add("base")
    said: list[frozenset[str]] = []
    hold = yard.rows.hold

    def heard(replica: str, names: frozenset[str]) -> None:
        said.append(names)
        hold(replica, names)

    monkeypatch.setattr(yard.rows, "hold", heard)
    await yard.fleet.step()
    await yard.fleet.step()
    assert yard.rows.out()["b"].why.startswith("differs: the base")
    assert not any(said)  # it was loaded meanwhile, and nobody was told
    for _ in range(3):  # it differs after each restart: in the end it is left for a person
        yard.now += 200
        yard.b.restart()
        yard.b.wrong.add("base")
        await yard.settle(3)
    assert len([r for r in yard.asked_to_restart if r[0] == "b"]) <= 3


async def test_what_an_engine_refuses_is_rejected_with_its_reason(yard: Yard) -> None:
    yard.a.fails["load"] = yard.b.fails["load"] = EngineRefused("rank 99", status=400, code="adapter_refused")
    version = yard.registered("one")
    await yard.settle()
    assert yard.state(version) is State.REJECTED
    assert set(yard.codes(version, "load")) == {"adapter_refused"}


@pytest.mark.parametrize("call", ["load", "probe"])
async def test_an_engine_that_breaks_off_and_lives_decides_nothing_and_is_asked_again(yard: Yard, call: str) -> None:
    version = yard.registered("one")
    await yard.probing.step()
    for engine in (yard.a, yard.b):
        engine.fails[call] = EngineBroke("cut")
    await yard.settle()
    assert yard.state(version) is State.VERIFIED
    assert yard.seen(version, "strike") == ()


async def test_a_version_that_kills_two_engines_is_rejected(yard: Yard) -> None:
    good = await yard.verified("good", "fine")
    version = yard.registered("bad")
    yard.a.deadly.add(engine_name(version))
    await yard.settle(2)
    assert len(yard.seen(version, "strike")) == 1
    assert yard.state(version) is State.PROBED
    yard.a.restart()
    await yard.settle(3)
    assert yard.state(version) is State.REJECTED
    assert yard.store.get("support", 1).reasons[0].code == "crashes_engine"
    yard.a.restart()
    await yard.settle(3)
    assert engine_name(good) in yard.a.held
    assert yard.serving().keys() == {"a", "b"}


async def test_a_restarted_engine_gets_everything_back_by_its_certificates(yard: Yard) -> None:
    versions = [await yard.verified(f"v{n}", f"many-{n}") for n in range(6)]
    yard.a.alive = False
    await yard.fleet.step()
    assert yard.serving().keys() == {"b"}
    yard.a.restart()
    before = len([e for v in versions for e in yard.seen(v, "parity")])
    await yard.settle(2)
    assert yard.serving()["a"] == {engine_name(v) for v in versions}
    assert len([e for v in versions for e in yard.seen(v, "parity")]) == before


async def test_an_engine_that_has_forgotten_gets_everything_back(yard: Yard) -> None:
    version = await yard.verified("one")
    yard.a.held.clear()
    await yard.settle(2)
    assert yard.serving()["a"] == {engine_name(version)}


async def test_a_worker_that_starts_anew_believes_what_the_last_one_proved(yard: Yard) -> None:
    version = await yard.verified("one")
    loaded = list(yard.a.loaded)
    yard.begin()
    yard.rows.revision = before = yard.rows.revision
    await yard.settle(2)
    assert yard.a.loaded == loaded
    assert yard.serving()["a"] == {engine_name(version)}
    assert yard.rows.revision == before, "no gateway was told that anything was gone meanwhile"


async def test_a_retired_version_leaves_when_the_last_gateway_has_let_go(yard: Yard) -> None:
    version = await yard.verified("one")
    name = engine_name(version)
    yard.registry.retire("support", 1, who="t", why="", take_down=True)
    await yard.fleet.look()
    before = yard.means.revision() - 1
    for revision, inflight, held in ((before, {}, True), (1 << 60, {name: 1}, True), (1 << 60, {}, False)):
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=revision, inflight=inflight))
        await yard.fleet.step()
        assert (name in yard.a.held) == held


async def test_a_version_that_nobody_lets_go_is_taken_off_in_the_end(yard: Yard) -> None:
    version = await yard.verified("one")
    yard.registry.retire("support", 1, who="t", why="", take_down=True)
    for _ in range(32):
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=0, inflight={}))
        await yard.fleet.step()
        yard.now += 1
    assert engine_name(version) not in yard.a.held


async def test_one_engine_that_is_down_does_not_hold_up_a_new_version(yard: Yard) -> None:
    yard.b.fails["adapters"] = EngineUnreachable("gone")
    yard.b.alive = False
    version = yard.registered("one")
    await yard.settle()
    assert yard.state(version) is State.VERIFIED
    assert yard.serving() == {"a": {engine_name(version)}}


async def test_nothing_is_read_or_asked_again_while_nothing_changes(yard: Yard) -> None:
    await yard.verified("one")
    await yard.fleet.step()
    view = yard.fleet.view
    await yard.fleet.step()
    assert yard.fleet.view is view
