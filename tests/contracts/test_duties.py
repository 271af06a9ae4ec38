"""One suite for every `Duties`: who is on duty, and how many loads an engine has taken."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.engines.fleet.sql import SqlDuties
from gateway.engines.fleet.store import Duties, Loads, MemoryDuties
from monitoring.database import connect


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def duties(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Duties]:
    if request.param == "memory":
        yield MemoryDuties()
        return
    url = f"sqlite:///{tmp_path}/c.db" if request.param == "sqlite" else request.getfixturevalue("empty_postgres_url")
    engine = connect(url)
    yield SqlDuties(engine)
    engine.dispose()


def test_one_worker_at_a_time_is_on_duty_and_a_silent_one_is_taken_over(duties: Duties) -> None:
    assert duties.on_duty("a", now=10.0, ttl_s=4)
    assert not duties.on_duty("b", now=12.0, ttl_s=4)
    assert duties.on_duty("a", now=13.0, ttl_s=4)
    assert not duties.on_duty("b", now=16.9, ttl_s=4)
    assert duties.on_duty("b", now=17.0, ttl_s=4)
    assert not duties.on_duty("a", now=17.5, ttl_s=4)


def test_a_worker_that_ends_gives_its_duty_back_and_nobody_else_s(duties: Duties) -> None:
    assert duties.on_duty("a", now=10.0, ttl_s=4)
    duties.off_duty("b")
    assert not duties.on_duty("b", now=10.1, ttl_s=4)
    duties.off_duty("a")
    assert duties.on_duty("b", now=10.2, ttl_s=4)


def test_of_many_that_ask_at_once_one_gets_it(duties: Duties) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: duties.on_duty(f"w{n}", now=100.0, ttl_s=4), range(8)))
    assert sum(taken) == 1


def test_the_count_of_loads_outlives_the_worker(duties: Duties) -> None:
    assert duties.loads("r") is None
    duties.note_loads("r", Loads(started_at=5.0, count=3))
    duties.note_loads("r", Loads(started_at=9.5, count=1))
    assert duties.loads("r") == Loads(started_at=9.5, count=1)
    assert duties.loads("s") is None
