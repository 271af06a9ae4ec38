"""Who is to blame in the fleet, and who is not: for a difference, for an engine's death, for what was not damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.checks.probe import Recorded
from adapters.errors import Unavailable
from adapters.intake import FORCED_NOOP
from adapters.lifecycle import State
from adapters.registry import engine_name
from gateway.engines.errors import EngineUnreachable
from gateway.engines.fleet.book import STRIKES_WITHIN_S
from tests.unit.gateway.engines_pure.yard import Engine, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def lives(yard: Yard, names: set[str], engines: dict[str, Engine], count: int) -> None:
    """So many times: the patrol goes round, and whatever engine is to be restarted is, and differs again."""
    done = len(yard.asked_to_restart)
    for _ in range(count):
        for engine in engines.values():
            engine.wrong |= names
        for _ in range(8):
            await yard.patrol.step()
        await yard.settle()
        yard.now += 130
        await yard.settle()
        for name, _, _ in yard.asked_to_restart[done:]:
            if name in engines:
                engines[name].restart()
                engines[name].wrong |= names
        done = len(yard.asked_to_restart)
        await yard.settle()


def restarts(yard: Yard) -> list[tuple[str, float]]:
    """(replica, start of the engine that was to go); one that is asked for twice is one."""
    return list(dict.fromkeys((name, started_at) for name, started_at, _ in yard.asked_to_restart))


async def test_a_replica_on_which_one_version_differs_after_every_restart_is_left_out_and_not_restarted_for_ever(
    yard: Yard,
) -> None:
    versions = [await yard.verified(f"v{n}", f"n{n}") for n in range(6)]
    await lives(yard, {engine_name(versions[0])}, {"a": yard.a}, 8)
    assert [name for name, _ in restarts(yard)] == ["a", "a"]
    assert yard.rows.out().keys() == {"a"}
    assert yard.serving()["b"] == {engine_name(v) for v in versions}
    assert yard.state(versions[0]) is State.VERIFIED, "others serve it as it was recorded"


async def test_what_was_certified_may_round_otherwise_in_another_batch(yard: Yard) -> None:
    """By more than a first certificate allows: what it takes for a difference costs everybody a restart."""
    version = await yard.verified("one")
    yard.a.off = yard.b.off = 0.03
    for _ in range(6):
        await yard.patrol.step()
    yard.b.restart()
    await yard.settle()
    assert not yard.asked_to_restart
    assert yard.serving().keys() == {"a", "b"}
    stranger = yard.registered("two", "other")
    await yard.settle()
    assert yard.state(stranger) is State.REJECTED
    assert yard.state(version) is State.VERIFIED


async def test_a_version_that_differs_on_every_new_engine_takes_none_of_them_along(yard: Yard) -> None:
    versions = [await yard.verified(f"v{n}", f"n{n}") for n in range(6)]
    await lives(yard, {engine_name(versions[0])}, {"a": yard.a, "b": yard.b}, 8)
    assert len(restarts(yard)) <= 4
    assert yard.rows.out() == {}
    rest = {engine_name(v) for v in versions[1:]}
    assert yard.serving() == {"a": rest, "b": rest}


async def test_a_replica_that_differed_once_proves_that_version_before_it_serves_it_again(yard: Yard) -> None:
    version = await yard.verified("one")
    yard.a.wrong.add(engine_name(version))
    await yard.patrol.step()
    assert yard.rows.out().keys() == {"a"}
    before = len(yard.seen(version, "parity"))
    yard.now += 130
    await yard.settle()
    yard.a.restart()
    await yard.settle()
    assert yard.serving().keys() == {"a", "b"}
    assert [seen.passed for seen in yard.seen(version, "parity")[before:]] == [True]


@pytest.mark.parametrize(("apart_s", "state"), [(60.0, State.REJECTED), (STRIKES_WITHIN_S * 2, State.VERIFIED)])
async def test_what_has_served_is_withdrawn_for_two_deaths_of_engines_near_each_other_only(
    yard: Yard, apart_s: float, state: State
) -> None:
    version = await yard.verified("one")

    async def dying(name: str, path: str) -> float:
        yard.a.alive = False
        raise EngineUnreachable("gone", engine="a")

    for _ in range(2):
        yard.a.restart()
        vars(yard.a)["load"] = dying
        await yard.settle(2)
        del vars(yard.a)["load"]
        yard.a.restart()
        await yard.settle()
        yard.now += apart_s
    assert len(yard.seen(version, "strike")) == 2
    assert yard.state(version) is state


async def test_a_version_that_is_retired_during_its_probe_is_not_called_damaged(yard: Yard) -> None:
    version = yard.registered("one")
    real = yard.prober.probe

    async def probe(folder: Path, *, digest: str, may_do_nothing: bool = False, gently: bool = False) -> Recorded:
        yard.registry.retire("support", 1, who="t", why="")
        return await real(folder, digest=digest)

    vars(yard.prober)["probe"] = probe
    await yard.settle()
    assert yard.state(version) is State.RETIRED
    assert yard.means.book.damaged == {}
    assert yard.codes(version, "load") == []


async def test_a_disk_that_was_busy_is_not_a_version_that_is_damaged(yard: Yard) -> None:
    version = await yard.verified("one")
    real = yard.means.staging.stage

    def busy(digest: str) -> object:
        raise Unavailable("The worker could not read it: too many open files.")

    vars(yard.means.staging)["stage"] = busy
    yard.a.restart()
    await yard.settle()
    assert yard.serving().keys() == {"b"}
    assert yard.means.book.damaged == {}
    assert yard.codes(version, "load") == []
    vars(yard.means.staging)["stage"] = real
    yard.now += 20
    await yard.settle()
    assert yard.serving().keys() == {"a", "b"}


async def test_a_worker_that_lost_its_duty_in_the_middle_of_a_load_leaves_the_count_to_the_next(yard: Yard) -> None:
    for n in range(3):
        await yard.verified(f"v{n}", f"n{n}")
    yard.a.restart()
    real = yard.a.load

    async def load(name: str, path: str) -> float:
        took = await real(name, path)
        yard.fleet.forget()
        return took

    vars(yard.a)["load"] = load
    await yard.fleet.step()
    noted = yard.duties.loads("a")
    assert noted is not None
    assert noted.started_at == yard.a.started_at
    assert noted.count >= yard.a.cached


async def test_an_adapter_that_was_forced_though_it_does_nothing_is_probed_as_one(yard: Yard) -> None:
    asked: dict[str, bool] = {}
    real = yard.prober.probe

    async def probe(folder: Path, *, digest: str, may_do_nothing: bool = False, gently: bool = False) -> Recorded:
        asked[digest] = may_do_nothing
        return await real(folder, digest=digest)

    vars(yard.prober)["probe"] = probe
    forced, usual = yard.registered("one", "forced", FORCED_NOOP), yard.registered("two", "usual")
    await yard.settle()
    assert asked == {forced.digest: True, usual.digest: False}
