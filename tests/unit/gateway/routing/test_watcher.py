"""The snapshot stays young, whole, and there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.errors import Unavailable
from adapters.experiments.store import MemoryExperiments
from gateway.errors import AdapterUnavailable
from gateway.routing import retry
from gateway.routing.retry import ATTEMPTS_MAX, Patience
from gateway.routing.store import MemoryFleetStore
from gateway.routing.watcher import Source, Watcher
from tests.unit.gateway.rows import alias, version


@dataclass
class Rows:
    """Keys, adapters and the revision of a database that a test moves by hand."""

    at: int = 1
    versions: list[Any] = field(default_factory=list)
    pointed: list[Any] = field(default_factory=list)
    away: Exception | None = None
    between: list[Any] = field(default_factory=list)

    def list(self, name: str | None = None, *, states: Any = None) -> Sequence[Any]:
        if self.away:
            raise self.away
        found = tuple(row for row in self.versions if states is None or row.state in states)
        if self.between:
            self.between.pop(0)()
        return found

    def aliases(self, name: str | None = None) -> Sequence[Any]:
        return tuple(self.pointed)


class Keys:
    def list(self, tenant: str | None = None) -> Sequence[Any]:
        return ()


class Fake(Source):
    def revision(self) -> int:
        rows: Any = self.adapters
        return int(rows.at)


def source(rows: Rows) -> Source:
    parts: dict[str, Any] = {
        "database": None,
        "keys": Keys(),
        "adapters": rows,
        "fleet": MemoryFleetStore(),
        "experiments": MemoryExperiments(),
    }
    return Fake(base_name="tidewell", base_created=1, **parts)


def test_a_change_between_two_reads_never_hides_an_alias() -> None:
    rows = Rows(versions=[version(1)], pointed=[alias(1)])

    def promote() -> None:
        rows.at, rows.versions, rows.pointed = 2, [version(1), version(2)], [alias(2, previous=1)]

    rows.between = [promote]
    watcher = Watcher(source(rows), poll_s=1)
    assert watcher.snapshot.revision == 2
    assert watcher.snapshot.targets["support"].adapter == "support:2"


def test_under_a_storm_of_changes_a_snapshot_comes_all_the_same_and_is_read_again() -> None:
    rows = Rows()

    def change() -> None:
        rows.at += 1

    rows.between = [change] * 10
    watcher = Watcher(source(rows), poll_s=1)
    assert watcher.snapshot.revision < rows.at
    rows.between = []
    assert watcher.look()
    assert watcher.snapshot.revision == rows.at
    assert not watcher.look()


def test_age_counts_from_the_last_good_look() -> None:
    now, rows = [100.0], Rows()
    watcher = Watcher(source(rows), poll_s=1, clock=lambda: now[0])
    now[0] += 7
    assert watcher.age_s == 7
    watcher.look()
    assert watcher.age_s == 0
    rows.at, rows.away = 2, Unavailable("away")
    now[0] += 3
    with pytest.raises(Unavailable):
        watcher.look()
    assert watcher.age_s == 3
    assert watcher.snapshot.revision == 1


@pytest.mark.parametrize("error", [Unavailable("away"), OSError("gone"), ValueError("a row that nobody foresaw")])
def test_no_failure_ends_the_looking(error: Exception) -> None:
    rows = Rows()
    watcher = Watcher(source(rows), poll_s=0.001)
    rows.at, rows.away = 2, error
    watcher.start()
    try:
        _until(lambda: watcher.failing)
        rows.away = None
        _until(lambda: watcher.snapshot.revision == 2 and not watcher.failing)
    finally:
        watcher.stop()


def _until(check: Any) -> None:
    until = time.monotonic() + 5
    while not check():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_so_many_tries_and_no_more() -> None:
    patience = Patience(adapter_wait_s=1)
    assert [patience.again(name) for name in "abc"] == [True] * (ATTEMPTS_MAX - 1) + [False]
    assert patience.tried == ["a", "b", "c"]


async def test_an_adapter_is_waited_for_and_then_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(retry, "_LOOK_S", 0)
    patience = Patience(adapter_wait_s=2, clock=lambda: now[0])
    await patience.wait()
    now[0] += 1.9
    await patience.wait()
    now[0] += 0.1
    with pytest.raises(AdapterUnavailable, match="waited 2 s"):
        await patience.wait()


async def test_no_patience_at_all_is_a_setting_too() -> None:
    with pytest.raises(AdapterUnavailable):
        await Patience(adapter_wait_s=0).wait()
