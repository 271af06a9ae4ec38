"""What a process believes of its engines, and how it changes its mind."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.lifecycle import State
from gateway.access.identify import Keyring
from gateway.engines.errors import EngineUnreachable
from gateway.errors import AdapterUnavailable, EngineFailed
from gateway.routing.replicas import Replicas
from gateway.routing.snapshot import Snapshot, build
from tests.unit.gateway.rows import alias, version


class Engine:
    """As much of an engine as health checks need."""

    def __init__(self) -> None:
        self.well: bool | Exception = True
        self.closed = False

    async def healthy(self) -> bool:
        if isinstance(self.well, Exception):
            raise self.well
        return self.well

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def engines() -> dict[str, Any]:
    return {"a": Engine(), "b": Engine()}


@pytest.fixture
async def replicas(engines: dict[str, Any]) -> Replicas:
    made = Replicas(engines, 10)
    await made.check()
    return made


def snapshot(revision: int = 1, **held: set[str]) -> Snapshot:
    return build(
        revision=revision,
        base_name="base",
        base_created=1,
        keyring=Keyring([]),
        versions=[version(1, State.VERIFIED)],
        aliases=[alias(1)],
        residents={name: frozenset(names) for name, names in held.items()},
    )


NAME = "support@0000000000000001"


async def test_seats_are_counted_and_given_back_once(replicas: Replicas) -> None:
    at = snapshot(a={NAME}, b={NAME})
    first = replicas.seat(at, at.targets["support"], ())
    second = replicas.seat(at, at.base, ())
    assert (first.replica, second.replica) == ("a", "b")
    assert dict(replicas.by_name) == {NAME: 1, "base": 1}
    assert replicas.inflight == 2
    for _ in range(2):
        first.leave()
        second.leave()
    assert replicas.inflight == 0
    assert dict(replicas.by_name) == {}


async def test_what_an_engine_denied_it_does_not_hold_until_something_moves(replicas: Replicas) -> None:
    at = snapshot(5, a={NAME})
    target = at.targets["support"]
    assert replicas.serves(at, target)
    replicas.lacks("a", target, 5)
    assert not replicas.serves(at, target)
    with pytest.raises(AdapterUnavailable):
        replicas.seat(at, target, ())
    assert replicas.seat(at, at.base, ()).replica == "a"
    assert replicas.serves(snapshot(6, a={NAME}), target)


async def test_health_is_asked_again_and_again(replicas: Replicas, engines: dict[str, Any]) -> None:
    at = snapshot()
    engines["a"].well, engines["b"].well = False, EngineUnreachable("gone")
    await replicas.check()
    assert replicas.up() == {"a": False, "b": False}
    with pytest.raises(EngineFailed):
        replicas.seat(at, at.base, ())
    engines["b"].well = True
    await replicas.check()
    assert replicas.seat(at, at.base, ()).replica == "b"
    replicas.failed("b")
    assert replicas.up() == {"a": False, "b": False}
    await replicas.close()
    assert engines["a"].closed
