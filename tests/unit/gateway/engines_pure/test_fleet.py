"""The reconcile loop over engines that are not there: what it loads, proves, drains and takes off, pass by pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.lifecycle import State
from adapters.registry import Registry, engine_name
from adapters.store import MemoryStore, Version
from adapters.values import Draft
from gateway.engines.errors import EngineBroke, EngineRefused, EngineUnreachable
from gateway.engines.fleet import Fleet
from gateway.engines.vllm import Probe
from gateway.routing.store import Beat, MemoryFleetStore
from monitoring.telemetry.shared import Metrics


class Engine:
    """An engine as the fleet sees it; `fails` holds what its calls raise, by name, once each."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.fails: dict[str, Exception] = {}
        self.finite = True

    async def adapters(self) -> frozenset[str]:
        self._fail("adapters")
        return frozenset(self.held)

    async def load(self, name: str, path: str) -> float:
        self._fail("load")
        self.held.add(name)
        return 0.01

    async def unload(self, name: str) -> None:
        self.held.remove(name)

    async def probe(self, model: str, prompt: str, *, tokens: int) -> Probe:
        self._fail("probe")
        value = -1.0 if model == "base" else -2.0
        return Probe(finite=self.finite, prompt_logprobs=(value,))

    def _fail(self, call: str) -> None:
        if error := self.fails.pop(call, None):
            raise error


class Artifacts:
    def verify(self, digest: str) -> Path:
        return Path("/nowhere") / digest


class Yard:
    """A fleet of two engines over stores in memory, with a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.store, self.rows = MemoryStore(clock=lambda: self.now), MemoryFleetStore()
        self.a, self.b = Engine(), Engine()
        parts: dict[str, Any] = {"a": self.a, "b": self.b}
        artifacts: Any = Artifacts()
        base: Any = None
        self.registry = Registry(self.store, artifacts, base, "sha256:base")
        self.metrics = Metrics(folder, "t")
        self.fleet = Fleet(
            parts,
            registry=self.registry,
            store=self.store,
            artifacts=artifacts,
            fleet=self.rows,
            metrics=self.metrics,
            revision=lambda: self.store.revision,
            base_name="base",
            capacity=10,
            drain_timeout_s=30,
            clock=lambda: self.now,
        )

    def registered(self, digit: str, name: str = "support") -> Version:
        draft = Draft(
            name=name,
            digest="sha256:" + digit * 64,
            created_by="t",
            base_digest="b",
            rank=4,
            alpha=8,
            bytes=1,
            coverage="",
        )
        made = self.store.insert(draft)
        return self.store.move(name, made.number, State.UPLOADED, State.CHECKED, who="t", why="")

    def state(self, version: Version) -> State:
        return self.store.get(version.name, version.number).state

    def serving(self) -> dict[str, frozenset[str]]:
        return {name: names for name, names in self.rows.residents().items() if names}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def test_a_new_version_is_loaded_proved_verified_and_live(yard: Yard) -> None:
    version = yard.registered("1")
    await yard.fleet.step()
    await yard.fleet.step()
    name = engine_name(version)
    assert yard.state(version) is State.VERIFIED
    assert yard.a.held == yard.b.held == {name}
    assert yard.serving() == {"a": {name}, "b": {name}}
    assert yard.store.alias("support", "live").number == 1
    second = yard.registered("2")
    await yard.fleet.step()
    assert yard.store.alias("support", "live").number == 1
    assert yard.store.alias("support", "candidate").number == second.number


async def test_what_does_not_prove_itself_is_taken_off_and_rejected(yard: Yard) -> None:
    yard.a.finite = yard.b.finite = False
    version = yard.registered("1")
    await yard.fleet.step()
    assert yard.state(version) is State.REJECTED
    assert yard.store.get("support", 1).reasons[0].code == "not_finite"
    assert yard.a.held == yard.b.held == set()


async def test_what_an_engine_refuses_is_rejected_with_its_reason(yard: Yard) -> None:
    yard.a.fails["load"] = yard.b.fails["load"] = EngineRefused("rank 99", status=400, code="adapter_refused")
    version = yard.registered("1")
    await yard.fleet.step()
    assert yard.state(version) is State.REJECTED


@pytest.mark.parametrize("call", ["load", "probe"])
async def test_an_engine_that_breaks_off_decides_nothing_and_is_asked_again(yard: Yard, call: str) -> None:
    version = yard.registered("1")
    for engine in (yard.a, yard.b):
        engine.fails[call] = EngineBroke("cut")
    if call == "probe":
        with pytest.raises(EngineBroke):
            await yard.fleet.step()
    else:
        await yard.fleet.step()
    assert yard.state(version) is State.CHECKED
    await yard.fleet.step()
    assert yard.state(version) is State.VERIFIED


async def test_one_engine_s_failure_does_not_leave_the_other_half_done(yard: Yard) -> None:
    version = yard.registered("1")
    yard.a.fails["probe"] = EngineBroke("cut")
    with pytest.raises(EngineBroke):
        await yard.fleet.step()
    assert yard.state(version) is State.VERIFIED
    assert yard.serving() == {"b": {engine_name(version)}}
    await yard.fleet.step()
    assert yard.serving().keys() == {"a", "b"}


async def test_a_restarted_engine_gets_everything_back_without_a_proof(yard: Yard) -> None:
    version = yard.registered("1")
    await yard.fleet.step()
    yard.a.fails["adapters"] = EngineUnreachable("gone")
    await yard.fleet.step()
    assert yard.serving() == {"b": {engine_name(version)}}
    yard.a.held.clear()
    yard.a.fails["probe"] = EngineBroke("must not be asked")
    await yard.fleet.step()
    assert yard.serving().keys() == {"a", "b"}


async def test_a_retired_version_leaves_when_the_last_gateway_has_let_go(yard: Yard) -> None:
    version = yard.registered("1")
    await yard.fleet.step()
    name = engine_name(version)
    yard.registry.retire("support", 1, who="t", why="", take_down=True)
    before = yard.store.revision - 1
    for revision, inflight, held in ((before, {}, True), (before + 1, {name: 1}, True), (before + 1, {}, False)):
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=revision, inflight=inflight))
        await yard.fleet.step()
        assert (name in yard.a.held) == held


async def test_a_version_that_nobody_lets_go_is_taken_off_in_the_end(yard: Yard) -> None:
    version = yard.registered("1")
    await yard.fleet.step()
    yard.registry.retire("support", 1, who="t", why="", take_down=True)
    for _ in range(32):
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=0, inflight={}))
        await yard.fleet.step()
        yard.now += 1
    assert engine_name(version) not in yard.a.held


async def test_a_version_that_comes_back_is_drained_anew_when_it_leaves_again(yard: Yard) -> None:
    """While another one is leaving all along, so that there is always something to unload."""
    version = yard.registered("1")
    await yard.fleet.step()
    name = engine_name(version)
    yard.a.held.add("stray@0000000000000000")
    yard.registry.retire("support", 1, who="t", why="", take_down=True)
    busy = Beat(gateway="g", at=yard.now, revision=0, inflight={name: 1})
    yard.rows.beat(busy)
    await yard.fleet.step()  # leaving since now
    again = yard.registered("1")
    for _ in range(28):
        yard.now += 1
        yard.a.held.add("stray@0000000000000000")
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=0, inflight={}))
        await yard.fleet.step()  # wanted again
    assert yard.state(again) is State.VERIFIED
    yard.registry.retire("support", again.number, who="t", why="", take_down=True)
    for _ in range(5):
        yard.now += 1
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=0, inflight={name: 1}))
        await yard.fleet.step()
    assert name in yard.a.held
