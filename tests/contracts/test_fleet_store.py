"""One suite for every `FleetStore`: what engines hold, and who still uses what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.routing.sql import STEPS, SqlFleetStore
from gateway.routing.store import Beat, FleetStore, MemoryFleetStore, Poison
from monitoring.database import connect, migrate, reading, revision


class Kept:
    """A store and the revision that its changes move."""

    def __init__(self, store: FleetStore, seen: Callable[[], int]) -> None:
        self.store, self.revision = store, seen


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    if request.param == "memory":
        memory = MemoryFleetStore()
        yield Kept(memory, lambda: memory.revision)
        return
    url = f"sqlite:///{tmp_path}/c.db" if request.param == "sqlite" else request.getfixturevalue("empty_postgres_url")
    engine = connect(url)

    def seen() -> int:
        with reading(engine).begin() as connection:
            return revision(connection)

    yield Kept(SqlFleetStore(engine), seen)
    engine.dispose()


def test_a_replica_holds_exactly_what_was_said_last(kept: Kept) -> None:
    kept.store.hold("a", frozenset({"x@1", "y@2"}))
    kept.store.hold("b", frozenset({"x@1"}))
    kept.store.hold("a", frozenset({"y@2", "z@3"}))
    assert kept.store.residents() == {"a": {"y@2", "z@3"}, "b": {"x@1"}}
    kept.store.hold("b", frozenset())
    assert kept.store.residents().get("b", frozenset()) == frozenset()


def test_only_news_moves_the_revision(kept: Kept) -> None:
    before = kept.revision()
    kept.store.hold("a", frozenset({"x@1"}))
    after = kept.revision()
    assert after > before
    kept.store.hold("a", frozenset({"x@1"}))
    kept.store.hold("new", frozenset())
    kept.store.beat(Beat(gateway="g", at=1.0, revision=1, inflight={}))
    assert kept.revision() == after


def test_a_beat_replaces_the_one_before_and_old_ones_are_left_out(kept: Kept) -> None:
    kept.store.beat(Beat(gateway="g-1", at=10.0, revision=1, inflight={"x@1": 2}))
    kept.store.beat(Beat(gateway="g-0", at=12.0, revision=3, inflight={}))
    kept.store.beat(Beat(gateway="g-1", at=11.0, revision=2, inflight={"y@2": 1}))
    assert [(b.gateway, b.revision, dict(b.inflight)) for b in kept.store.beats(since=0)] == [
        ("g-0", 3, {}),
        ("g-1", 2, {"y@2": 1}),
    ]
    assert [b.gateway for b in kept.store.beats(since=11.5)] == ["g-0"]


def test_a_replica_that_is_out_stays_out_for_its_first_reason_until_it_is_brought_back(kept: Kept) -> None:
    before = kept.revision()
    kept.store.take_out("a", why="nan: x@1", at=10.0, started_at=3.0)
    assert kept.revision() > before
    kept.store.take_out("a", why="differs: y@2", at=11.0, started_at=3.0)
    kept.store.take_out("b", why="full", at=12.0)
    assert {name: (out.why, out.at, out.started_at) for name, out in kept.store.out().items()} == {
        "a": ("nan: x@1", 10.0, 3.0),
        "b": ("full", 12.0, 0.0),
    }
    before = kept.revision()
    kept.store.bring_back("a")
    assert kept.revision() > before
    assert kept.store.out().keys() == {"b"}
    before = kept.revision()
    kept.store.bring_back("a")
    assert kept.revision() == before


def test_another_engine_that_is_taken_out_replaces_the_one_before(kept: Kept) -> None:
    kept.store.take_out("a", why="nan: x@1", at=10.0, started_at=3.0)
    kept.store.take_out("a", why="differs: the base", at=20.0, started_at=15.0)
    assert (kept.store.out()["a"].why, kept.store.out()["a"].started_at) == ("differs: the base", 15.0)


def test_poison_is_reported_once_and_read_in_its_order(kept: Kept) -> None:
    before = kept.revision()
    late = Poison(replica="a", engine_name="y@2", at=12.0, gateway="g-1")
    early = Poison(replica="a", engine_name="x@1", at=10.5, gateway="g-0")
    for poison in (late, early, late):
        kept.store.poison(poison)
    assert list(kept.store.poisons(since=0)) == [early, late]
    assert list(kept.store.poisons(since=11)) == [late]
    assert kept.revision() == before


def test_poison_is_contained_only_if_everybody_says_so(kept: Kept) -> None:
    told = Poison(replica="a", engine_name="x@1", at=10.5, gateway="g-0", contained=True)
    for poison in (told, told):
        kept.store.poison(poison)
    assert list(kept.store.poisons(since=0)) == [told]
    for poison in (replace(told, contained=False), told):
        kept.store.poison(poison)
    assert list(kept.store.poisons(since=0)) == [replace(told, contained=False)]


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def test_reports_of_an_earlier_version_were_not_contained(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/c.db" if where == "sqlite" else request.getfixturevalue("empty_postgres_url")
    engine = connect(url)

    def earlier(connection: sa.Connection) -> None:
        STEPS[0](connection)
        STEPS[1](connection)
        connection.exec_driver_sql("ALTER TABLE fleet_poisons DROP COLUMN contained")
        connection.exec_driver_sql("INSERT INTO fleet_poisons VALUES ('a', 'x@1', 10.5, 'g-0')")

    assert migrate(engine, "fleet", (earlier, lambda connection: None)) == 2
    store = SqlFleetStore(engine)
    assert store.poisons(since=0) == [Poison(replica="a", engine_name="x@1", at=10.5, gateway="g-0")]
    engine.dispose()


def test_a_beat_says_what_each_replica_has(kept: Kept) -> None:
    kept.store.beat(Beat(gateway="g", at=1.0, revision=1, inflight={"x@1": 1}, by_replica={"a": 3}))
    assert dict(kept.store.beats(since=0)[0].by_replica) == {"a": 3}
