"""What a process believes of its engines, and how it changes its mind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.lifecycle import State
from gateway.access.identify import Keyring
from gateway.engines.errors import EnginePoisoned, EngineUnreachable
from gateway.errors import AdapterUnavailable, EngineFailed, NoCapacity
from gateway.routing.fairness import Rules
from gateway.routing.replicas import Replicas
from gateway.routing.snapshot import Snapshot, build
from tests.unit.gateway.rows import alias, version


class Engine:
    """As much of an engine as health checks need."""

    def __init__(self) -> None:
        self.well: bool | Exception = True
        self.closed = False
        self.started_at = 0.0

    async def gauges(self) -> Any:
        return SimpleNamespace(started_at=self.started_at)

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


def snapshot(
    revision: int = 1, *, out: dict[str, str] | None = None, pinned: tuple[str, ...] = (), **held: set[str]
) -> Snapshot:
    return build(
        revision=revision,
        out=out,
        base_name="base",
        base_created=1,
        keyring=Keyring([]),
        versions=[version(number, State.VERIFIED, name=name) for number, name in enumerate(NAMES, 1)],
        aliases=[
            replace(alias(number, name=name), pinned=name in pinned, moved_at=float(number))
            for number, name in enumerate(NAMES, 1)
        ],
        residents={name: frozenset(names) for name, names in held.items()},
    )


NAMES = ("support", "sales", "guard")
NAME, SALES, GUARD = (f"{name}@{number:016x}" for number, name in enumerate(NAMES, 1))


async def test_seats_are_counted_and_given_back_once(replicas: Replicas) -> None:
    at = snapshot(a={NAME}, b={NAME})
    first = await replicas.seat(at, at.targets["support"], ())
    second = await replicas.seat(at, at.base, ())
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
        await replicas.seat(at, target, ())
    assert (await replicas.seat(at, at.base, ())).replica == "a"
    assert replicas.serves(snapshot(6, a={NAME}), target)


async def test_health_is_asked_again_and_again(replicas: Replicas, engines: dict[str, Any]) -> None:
    at = snapshot()
    engines["a"].well, engines["b"].well = False, EngineUnreachable("gone")
    await replicas.check()
    assert replicas.up() == {"a": False, "b": False}
    with pytest.raises(EngineFailed):
        await replicas.seat(at, at.base, ())
    engines["b"].well = True
    await replicas.check()
    assert (await replicas.seat(at, at.base, ())).replica == "b"
    replicas.failed("b")
    assert replicas.up() == {"a": False, "b": False}
    await replicas.close()
    assert engines["a"].closed


# Turns


async def soon(task: asyncio.Task[Any]) -> bool:
    """Whether a task ends without anything more happening."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


@pytest.fixture
async def one(engines: dict[str, Any]) -> Replicas:
    """One replica with one slot."""
    made = Replicas({"a": engines["a"]}, 10, rules=Rules(slots=1, turn_s=1e-9, queue_max=4, queue_timeout_s=60))
    await made.check()
    return made


async def test_an_adapter_without_a_slot_waits_until_the_other_has_ended_and_the_base_does_not(one: Replicas) -> None:
    at = snapshot(a={NAME, SALES})
    first = await one.seat(at, at.targets["support"], ())
    task = asyncio.create_task(one.seat(at, at.targets["sales"], ()))
    assert not await soon(task)
    assert dict(one.waiting) == {"a": 1}
    assert one.by_name[SALES] == 1, "a version that is waited for is in use"
    assert dict(one.by_replica) == {"a": 1}
    assert (await one.seat(at, at.base, ())).queued_s == 0
    first.leave()
    seat = await task
    assert (seat.replica, first.queued_s) == ("a", 0)
    assert seat.queued_s > 0
    seat.leave()
    assert dict(one.by_name) == {"base": 1}


async def test_a_client_that_leaves_while_it_waits_gives_its_place_up_at_once(one: Replicas) -> None:
    at = snapshot(a={NAME, SALES, GUARD})
    first = await one.seat(at, at.targets["support"], ())
    tasks = [asyncio.create_task(one.seat(at, at.targets[name], ())) for name in ("sales", "guard")]
    assert not await soon(tasks[0])
    tasks[0].cancel()
    assert await soon(tasks[0])
    assert dict(one.waiting) == {"a": 1}
    first.leave()
    tasks[1].cancel()  # in the very moment in which its turn has come
    assert await soon(tasks[1])
    assert tasks[1].cancelled()
    assert (dict(one.waiting), dict(one.by_name), one.inflight) == ({"a": 0}, {}, 0)
    assert (await one.seat(at, at.targets["sales"], ())).queued_s == 0


async def test_a_wait_has_an_end_and_says_when_to_come_back(engines: dict[str, Any]) -> None:
    waits: list[tuple[str, float]] = []
    replicas = Replicas(
        {"a": engines["a"]},
        10,
        rules=Rules(slots=1, queue_timeout_s=0.01),
        on_wait=lambda name, seconds: waits.append((name, seconds)),
    )
    await replicas.check()
    at = snapshot(a={NAME, SALES})
    await replicas.seat(at, at.targets["support"], ())
    with pytest.raises(NoCapacity, match="one of the engine's 1 slots") as caught:
        await replicas.seat(at, at.targets["sales"], ())
    assert caught.value.retry_after_s >= 1
    assert (dict(replicas.waiting), dict(replicas.by_name)) == ({"a": 0}, {NAME: 1})
    assert [name for name, seconds in waits if seconds >= 0.01] == ["a"]


async def test_who_waits_on_a_replica_that_goes_down_or_out_goes_elsewhere(engines: dict[str, Any]) -> None:
    replicas = Replicas(engines, 10, rules=Rules(slots=1))
    await replicas.check()
    here = snapshot(1, a={NAME, SALES}, b={SALES, GUARD})
    await replicas.seat(here, here.targets["support"], ())
    guard = await replicas.seat(here, here.targets["guard"], ())
    tasks = [asyncio.create_task(replicas.seat(here, here.targets["sales"], ())) for _ in range(2)]
    assert not await soon(tasks[0])
    assert sum(replicas.waiting.values()) == 2
    replicas.failed("a")
    assert not await soon(tasks[0])
    assert dict(replicas.waiting) == {"a": 0, "b": 2}
    guard.leave()
    assert {(await task).replica for task in tasks} == {"b"}
    engines["a"].well = engines["b"].well = True
    await replicas.check()
    third = asyncio.create_task(replicas.seat(here, here.targets["guard"], ()))
    assert not await soon(third)
    replicas.follow(snapshot(2, out={"b": "parity"}, a={NAME, SALES}, b={SALES, GUARD}))
    with pytest.raises(AdapterUnavailable):
        await third


async def test_a_pinned_adapter_has_a_slot_and_pins_beyond_the_slots_are_named(engines: dict[str, Any]) -> None:
    replicas = Replicas({"a": engines["a"]}, 10, rules=Rules(slots=2))
    await replicas.check()
    held = {NAME, SALES, GUARD}
    at = snapshot(1, pinned=("guard",), a=held)
    assert at.targets["guard"].pinned
    assert not at.targets["guard:3"].pinned
    replicas.follow(at)
    assert not replicas.pins_ignored
    await replicas.seat(at, at.targets["support"], ())
    task = asyncio.create_task(replicas.seat(at, at.targets["sales"], ()))
    assert not await soon(task)
    assert (await replicas.seat(at, at.targets["guard"], ())).queued_s == 0
    replicas.follow(snapshot(2, pinned=("support", "guard"), a=held))
    assert replicas.pins_ignored == (NAME,), "who came last, though its alias was moved before"
    task.cancel()


# Out and poisoned


async def test_a_replica_that_is_out_takes_nothing_not_even_for_the_base(replicas: Replicas) -> None:
    at = snapshot(1, out={"a": "parity"}, a={NAME}, b=set())
    assert not replicas.serves(at, at.targets["support"])
    assert replicas.serves(at, at.base)
    assert (await replicas.seat(at, at.base, ())).replica == "b"
    with pytest.raises(AdapterUnavailable):
        await replicas.seat(at, at.targets["support"], ())
    back = snapshot(2, a={NAME})
    assert (await replicas.seat(back, back.targets["support"], ())).replica == "a"


async def test_a_poisoned_replica_is_left_alone_until_it_was_out_and_is_back(engines: dict[str, Any]) -> None:
    told: list[tuple[str, str, float, bool]] = []
    replicas = Replicas(engines, 10, on_poison=lambda *report: told.append(report))
    await replicas.check()
    held: dict[str, Any] = {"a": {NAME}, "b": {NAME}}
    at = snapshot(1, **held)
    target = at.targets["support"]
    replicas.follow(at)
    error = EnginePoisoned("NaN", at=50.0, first_at=40.0, first=(SALES,))
    for _ in range(3):
        replicas.poisoned("a", target, error)
    assert told == [("a", SALES, 40.0, False), ("a", NAME, 50.0, False)]
    for number, out in enumerate(({}, {"a": "poisoned"}), 2):
        at = snapshot(number, out=out, **held)
        assert (await replicas.seat(at, target, ())).replica == "b"
        assert (await replicas.seat(at, at.base, ())).replica == "b"
    at = snapshot(4, **held)
    assert (await replicas.seat(at, at.base, ())).replica == "a"


async def test_a_poisoned_replica_whose_engine_started_again_is_well(engines: dict[str, Any]) -> None:
    replicas = Replicas({"a": engines["a"]}, 10)
    await replicas.check()
    at = snapshot(1, a={NAME})
    replicas.poisoned("a", at.targets["support"], EnginePoisoned("NaN", at=50.0))
    engines["a"].started_at = 49.0
    await replicas.check()
    with pytest.raises(EngineFailed):
        await replicas.seat(at, at.base, ())
    engines["a"].started_at = 51.0
    await replicas.check()
    assert (await replicas.seat(at, at.base, ())).replica == "a"


async def test_an_engine_that_contains_the_poison_is_reported_and_used_on(engines: dict[str, Any]) -> None:
    told: list[tuple[str, str, float, bool]] = []
    replicas = Replicas({"a": engines["a"]}, 10, on_poison=lambda *report: told.append(report))
    await replicas.check()
    at = snapshot(1, a={NAME})
    target = at.targets["support"]
    for when in (50.0, 51.0, 79.0):
        replicas.poisoned("a", target, EnginePoisoned("NaN", at=when, contained=True))
    assert told == [("a", NAME, 50.0, True)]
    replicas.poisoned("a", target, EnginePoisoned("NaN", at=80.0, contained=True))
    assert told[1:] == [("a", NAME, 80.0, True)], "the same bytes may have been registered again"
    assert (await replicas.seat(at, at.base, ())).replica == "a"
    replicas.poisoned("a", target, EnginePoisoned("NaN", at=81.0, contained=False))
    assert told[2:] == [("a", NAME, 81.0, False)]
    with pytest.raises(EngineFailed):
        await replicas.seat(at, at.base, ())


async def test_a_base_that_gives_contained_nan_for_ever_is_reported_once(engines: dict[str, Any]) -> None:
    told: list[tuple[str, str, float, bool]] = []
    replicas = Replicas({"a": engines["a"]}, 10, on_poison=lambda *report: told.append(report))
    for when in (50.0, 500.0, 5000.0):
        replicas.poisoned("a", snapshot(1, a={NAME}).base, EnginePoisoned("NaN", at=when, contained=True))
    assert [(when, contained) for _, _, when, contained in told] == [(50.0, True)]
