"""One suite for every `FleetStore`: what engines hold, and who still uses what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.routing.sql import SqlFleetStore
from gateway.routing.store import Beat, FleetStore, MemoryFleetStore
from monitoring.database import connect, reading, revision


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
