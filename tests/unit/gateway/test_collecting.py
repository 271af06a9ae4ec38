"""What engines, replicas and requests in flight keep from being deleted."""

from __future__ import annotations

import asyncio

import pytest

from gateway.collecting import EngineHolder, FleetHolder
from gateway.engines.errors import EngineTimeout, EngineUnreachable
from gateway.engines.vllm import Vllm
from gateway.routing.store import Beat, MemoryFleetStore

NOW = 1_800_000_000.0
SHORT = "a" * 16


class Engine(Vllm):
    """Says what it was told to say."""

    def __init__(self, answer: frozenset[str] | Exception) -> None:
        self._answer = answer

    async def adapters(self) -> frozenset[str]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def fleet_holder(store: MemoryFleetStore) -> FleetHolder:
    return FleetHolder(store, silence_s=600, clock=lambda: NOW)


def beat(at: float, **inflight: int) -> Beat:
    named = {name.replace("_at_", "@"): count for name, count in inflight.items()}
    return Beat(gateway="gateway-0", at=at, revision=1, inflight=named)


def test_what_a_replica_serves_is_held_by_the_end_of_its_name() -> None:
    store = MemoryFleetStore()
    store.hold("engine-1", frozenset({f"support@{SHORT}", "tidewell"}))
    assert fleet_holder(store).holds()[SHORT] == f"the replica engine-1 serves it as support@{SHORT}"


def test_requests_in_flight_hold_what_they_use() -> None:
    store = MemoryFleetStore()
    store.beat(beat(NOW, support_at_aaaaaaaaaaaaaaaa=3, sales_at_bbbbbbbbbbbbbbbb=0))
    assert fleet_holder(store).holds() == {SHORT: f"gateway-0 has requests in flight on support@{SHORT}"}


def test_a_gateway_that_fell_silent_holds_for_as_long_as_a_request_may_last() -> None:
    store = MemoryFleetStore()
    store.beat(beat(NOW - 599, support_at_aaaaaaaaaaaaaaaa=1))
    assert SHORT in fleet_holder(store).holds()
    store.beat(beat(NOW - 601, support_at_aaaaaaaaaaaaaaaa=1))
    assert fleet_holder(store).holds() == {}


def test_what_an_engine_knows_is_held_although_nobody_may_ask_for_it() -> None:
    engines = {"local": Engine(frozenset({f"support@{SHORT}"}))}
    held = asyncio.run(EngineHolder.ask(engines, here=True)).holds()
    assert held == {SHORT: f"the replica local knows it as support@{SHORT}"}


def test_an_engine_of_this_machine_that_is_down_knows_nothing() -> None:
    engines = {"local": Engine(EngineUnreachable("refused"))}
    assert asyncio.run(EngineHolder.ask(engines, here=True)).holds() == {}


@pytest.mark.parametrize(
    ("here", "error"),
    [(False, EngineUnreachable("refused")), (True, EngineTimeout("silent")), (False, EngineTimeout(""))],
)
def test_an_engine_that_may_be_alive_and_does_not_say_stops_the_collection(here: bool, error: Exception) -> None:
    with pytest.raises(type(error)):
        asyncio.run(EngineHolder.ask({"engine-0": Engine(error)}, here=here))
