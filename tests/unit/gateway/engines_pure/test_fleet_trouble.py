"""The fleet in trouble: poison, no room, damaged files, a worker that dies at any step."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Version
from gateway.engines.fleet.capacity import IDLE_S
from gateway.routing.store import Beat, Poison
from tests.unit.gateway.engines_pure.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def poison(yard: Yard, version: Version, replica: str = "a", at: float = 500.0) -> None:
    yard.rows.poison(Poison(replica=replica, engine_name=engine_name(version), at=at, gateway="g"))


def folder_of(yard: Yard, version: Version) -> Path:
    return yard.artifacts.path(version.digest)


# poison


async def test_poison_withdraws_the_version_marks_the_answers_and_recycles_the_replica_behind_a_drain(
    yard: Yard,
) -> None:
    good, bad = await yard.verified("good", "fine"), await yard.verified("bad")
    poison(yard, bad)
    yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1 << 60, inflight={}, by_replica={"a": 1}))
    await yard.fleet.step()
    assert yard.state(bad) is State.REJECTED
    assert yard.store.get("support", 1).reasons[0].code == "nan_at_runtime"
    assert yard.codes(bad, "tripwire") == ["nan_at_runtime"]
    assert yard.store.aliases("support") == ()
    assert yard.rows.out()["a"].why == f"nan: first from {engine_name(bad)}"
    assert yard.tainted[0][:3] == ("a", 500.0, yard.now + 10)
    assert yard.asked_to_restart == [], "a stream still runs there"
    yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1 << 60, inflight={}, by_replica={}))
    await yard.fleet.step()
    assert yard.asked_to_restart == [("a", 100.0, "nan")]
    yard.a.restart()
    await yard.settle()
    assert yard.rows.out() == {}
    assert yard.serving() == {"a": {engine_name(good)}, "b": {engine_name(good)}}
    assert len(yard.tainted) == 1


async def test_a_stream_that_does_not_end_is_not_waited_for_longer_than_the_drain(yard: Yard) -> None:
    bad = await yard.verified("bad")
    poison(yard, bad)
    for _ in range(4):
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1 << 60, inflight={}, by_replica={"a": 1}))
        await yard.fleet.step()
        yard.now += 4
    assert [asked[0] for asked in yard.asked_to_restart] == ["a"]


async def test_a_replica_that_nobody_here_can_restart_stays_out_until_it_was(yard: Yard) -> None:
    yard.restartable = False
    good, bad = await yard.verified("good", "fine"), await yard.verified("bad")
    poison(yard, bad)
    await yard.settle()
    yard.now += 1000
    await yard.settle()
    assert yard.rows.out().keys() == {"a"}
    assert yard.asked_to_restart == []
    yard.a.restart()
    await yard.settle()
    assert yard.rows.out() == {}
    assert yard.serving()["a"] == {engine_name(good)}


async def test_those_that_were_hit_are_proved_again_before_they_serve(yard: Yard) -> None:
    good, bad = await yard.verified("good", "fine"), await yard.verified("bad")
    poison(yard, bad)
    poison(yard, good, at=501.0)
    await yard.settle()
    assert yard.state(good) is State.VERIFIED
    before = len(yard.seen(good, "parity"))
    yard.a.restart()
    await yard.settle()
    assert len(yard.seen(good, "parity")) == before + 1


async def test_poison_of_an_engine_that_is_gone_is_old_news(yard: Yard) -> None:
    bad = await yard.verified("bad")
    poison(yard, bad, at=99.0)
    await yard.settle()
    assert yard.state(bad) is State.VERIFIED
    assert yard.rows.out() == {}


@pytest.mark.parametrize("dies_at", ["taint", "take_out", "attest", "withdraw"])
async def test_a_worker_that_dies_over_poison_is_followed_by_one_that_does_the_rest(yard: Yard, dies_at: str) -> None:
    bad = await yard.verified("bad")
    poison(yard, bad)

    class Dies(Exception):
        pass

    def dying(*args: object, **kwargs: object) -> None:
        raise Dies

    if dies_at == "taint":
        object.__setattr__(yard.means, "taint", dying)
    elif dies_at == "take_out":
        yard.rows.take_out = dying  # type: ignore[method-assign]
    elif dies_at == "attest":
        yard.store.attest = dying  # type: ignore[method-assign]
    else:
        yard.registry.withdraw = dying  # type: ignore[method-assign, assignment]
    with pytest.raises(Dies):
        await yard.fleet.step()
    for owner, name in ((yard.rows, "take_out"), (yard.store, "attest"), (yard.registry, "withdraw")):
        vars(owner).pop(name, None)
    yard.begin()
    await yard.settle()
    assert yard.state(bad) is State.REJECTED
    assert yard.rows.out().keys() == {"a"}
    assert yard.asked_to_restart
    assert yard.tainted


# room


async def test_an_engine_is_never_asked_for_more_loads_than_its_cache_holds(tmp_path: Path) -> None:
    yard = Yard(tmp_path, bound=8, headroom=2)
    yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1 << 60, inflight={}, by_replica={"a": 1, "b": 1}))
    for n in range(12):
        version = yard.registered(f"v{n}")
        await yard.settle()
        if n < 6:
            continue
        yard.rows.beat(Beat(gateway="g", at=yard.now, revision=1 << 60, inflight={}, by_replica={"a": 1, "b": 1}))
        yard.registry.retire("support", n - 4, who="t", why="", take_down=True)
    assert max(yard.a.cached_most, yard.b.cached_most) == 8
    waiting = [v for v in yard.store.list() if v.state is State.PROBED]
    assert waiting
    assert "waiting_for_room" in yard.codes(version, "load")


async def test_a_full_engine_that_is_idle_is_recycled_and_then_takes_what_waited(tmp_path: Path) -> None:
    yard = Yard(tmp_path, bound=4, headroom=1)
    for n in range(4):
        await yard.verified(f"v{n}", "many")
        yard.registry.promote("many", n + 1, who="t", why="")
        if n > 1:
            yard.registry.retire("many", n - 1, who="t", why="")
    last = yard.registered("last", "many")
    await yard.settle()
    assert yard.state(last) is State.PROBED
    for replica in yard.fleet.replicas.values():  # both have been idle for long; only one goes at a time
        replica._loading.full.idle_since = -IDLE_S
    await yard.settle()
    assert len(yard.asked_to_restart) == 1
    assert yard.asked_to_restart[0][2] == "full"
    (yard.a if yard.asked_to_restart[0][0] == "a" else yard.b).restart()
    await yard.settle(6)
    out = yard.asked_to_restart[-1][0]
    (yard.a if out == "a" else yard.b).restart()
    await yard.settle(6)
    assert yard.state(last) is State.VERIFIED


async def test_the_count_of_loads_is_right_after_a_worker_died(tmp_path: Path) -> None:
    yard = Yard(tmp_path, bound=5, headroom=1)
    for n in range(4):
        version = await yard.verified(f"v{n}", "many")
        if n:
            yard.registry.promote("many", n + 1, who="t", why="")
    yard.registry.retire("many", 1, who="t", why="")
    await yard.settle()
    assert len(yard.a.held) == 3
    yard.begin()
    await yard.settle()
    assert yard.fleet.replicas["a"].loads == 4, "one more than it has: what was unloaded is still cached"
    assert yard.state(version) is State.VERIFIED


async def test_more_than_fits_is_spread_over_the_replicas_and_pointed_at_twice(tmp_path: Path) -> None:
    yard = Yard(tmp_path, bound=13, headroom=3)
    versions = []
    engines = {"a": yard.a, "b": yard.b}
    restarted = 0
    for n in range(16):
        versions.append(yard.registered(f"v{n}", "many"))
        await yard.settle(3)
        while restarted < len(yard.asked_to_restart):  # one after the other, while the other one carries it all
            engines[yard.asked_to_restart[restarted][0]].restart()
            restarted += 1
            await yard.settle(3)
    assert all(yard.state(v) is State.VERIFIED for v in versions)
    held = yard.serving()
    assert held["a"] | held["b"] == {engine_name(v) for v in versions}
    live = engine_name(versions[0])
    assert live in held["a"]
    assert live in held["b"]
    assert max(yard.a.cached_most, yard.b.cached_most) == 13


# files


async def test_a_version_whose_files_were_deleted_serves_on_is_reported_and_loads_when_they_are_mended(
    yard: Yard,
) -> None:
    version = await yard.verified("one")
    folder = folder_of(yard, version)
    folder.chmod(0o755)
    shutil.rmtree(folder)
    await yard.patrol.step()
    await yard.fleet.step()
    assert yard.serving()["a"] == {engine_name(version)}
    assert yard.means.book.damaged == {version.digest: "adapter_not_found"}
    assert yard.codes(version, "load") == ["adapter_not_found"]
    yard.a.restart()
    await yard.settle()
    assert yard.a.held == set()
    assert yard.state(version) is State.VERIFIED
    assert yard.serving().keys() == {"b"}
    yard.artifacts.add(yard.folder / "made" / "one")
    yard.now += 20
    await yard.settle()
    assert yard.serving()["a"] == {engine_name(version)}
    assert yard.means.book.damaged == {}


async def test_bytes_that_were_changed_on_disk_are_never_loaded(yard: Yard) -> None:
    version = await yard.verified("one")
    path = folder_of(yard, version) / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_text("tampered")
    yard.a.restart()
    await yard.settle()
    assert yard.a.loaded == [engine_name(version)], "once, before"
    assert yard.codes(version, "load") == ["digest_mismatch"]
    assert yard.state(version) is State.VERIFIED
    assert yard.serving().keys() == {"b"}


async def test_a_new_version_with_changed_bytes_is_not_probed_nor_rejected_for_it(yard: Yard) -> None:
    version = yard.registered("one")
    path = folder_of(yard, version) / "adapter_config.json"
    path.chmod(0o644)
    path.write_text("{ }")
    await yard.settle()
    assert yard.state(version) is State.CHECKED
    assert yard.prober.asked == []
    assert yard.codes(version, "load") == ["digest_mismatch"]


@pytest.mark.parametrize("steps", range(1, 9))
async def test_a_worker_killed_after_any_step_is_followed_by_one_that_ends_where_it_would_have(
    yard: Yard, steps: int
) -> None:
    """Every call to an engine, one after the other, is the last thing that a worker does."""
    version = yard.registered("one")
    await yard.probing.step()
    left = steps

    class Killed(Exception):
        pass

    def counting(engine: object) -> None:
        for name in ("adapters", "gauges", "load", "probe"):
            real = getattr(engine, name)

            async def call(*args: object, real: object = real, **kwargs: object) -> object:
                nonlocal left
                left -= 1
                if left <= 0:
                    raise Killed
                return await real(*args, **kwargs)  # type: ignore[operator]

            setattr(engine, name, call)

    counting(yard.a)

    async def life() -> None:
        for _ in range(20):
            await yard.fleet.step()
            yard.a.restart()

    with pytest.raises(Killed):
        await life()
    for name in ("adapters", "gauges", "load", "probe"):
        vars(yard.a).pop(name)
    yard.begin()
    await yard.settle()
    assert yard.state(version) is State.VERIFIED
    assert yard.serving().keys() == {"a", "b"}
    assert replace(yard.store.alias("support", "live"), moved_at=0).number == 1
