"""When numbers cannot be trusted because records do not arrive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.experimenting.flow import Flow


@dataclass
class World:
    """Seconds, and records lost."""

    folder: Path
    now: float = 100.0
    lost: float = 3.0

    def flow(self) -> Flow:
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        return Flow(spool, self.folder / "memory.json", lambda: self.lost, mono=lambda: self.now)

    def write(self, text: str) -> None:
        (self.folder / "spool" / "gateway-0-x-1.spool").write_text(text)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_spool_that_nobody_empties_breaks_every_experiment_and_an_empty_one_none(world: World) -> None:
    flow = world.flow()
    world.now += 31
    assert flow.broken(["e1", "e2"]) == {"e1": (), "e2": ()}
    world.write("a line\n")
    found = flow.broken(["e1", "e2"])
    assert (
        found["e1"] == found["e2"] == ("the spool was last emptied 31 s ago: what was said since is not counted yet",)
    )
    flow.emptied()
    assert flow.broken(["e1"]) == {"e1": ()}


def test_a_short_wait_is_no_alarm(world: World) -> None:
    flow = world.flow()
    world.write("a line\n")
    world.now += 29
    assert flow.broken(["e1"]) == {"e1": ()}


def test_records_lost_since_it_opened_break_an_experiment_and_those_before_do_not(world: World) -> None:
    flow = world.flow()
    assert flow.broken(["e1"]) == {"e1": ()}
    world.lost += 2
    assert flow.broken(["e1", "e2"]) == {"e1": ("2 records were lost since the experiment opened",), "e2": ()}


def test_a_count_that_began_anew_is_counted_from_there(world: World) -> None:
    flow = world.flow()
    flow.broken(["e1"])
    world.lost = 0
    assert flow.broken(["e1"]) == {"e1": ()}
    world.lost = 1
    assert flow.broken(["e1"])["e1"] == ("1 records were lost since the experiment opened",)


def test_a_restarted_worker_knows_what_was_lost_and_forgets_what_is_over(world: World) -> None:
    world.flow().broken(["e1"])
    world.lost += 2
    again = world.flow()
    assert again.broken(["e1"])["e1"] != ()
    again.broken(["e2"])
    assert world.flow().broken(["e1"]) == {"e1": ()}


@pytest.mark.parametrize("text", ["", "[1]", '{"e1": "many"}', "{"])
def test_a_damaged_memory_is_begun_anew(text: str, world: World) -> None:
    (world.folder / "memory.json").write_text(text)
    assert world.flow().broken(["e1"]) == {"e1": ()}
