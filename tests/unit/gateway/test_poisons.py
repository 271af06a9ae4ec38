"""Reports of NaN on their way to the fleet, and what is kept from further engines meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.engines.errors import EnginePoisoned
from gateway.poisons import BLOCKED_S, Poisons, may_try_elsewhere
from gateway.routing.store import MemoryFleetStore, Poison
from gateway.values import Target
from monitoring.telemetry.shared import Metrics

BAD = Target(engine_name="bad@00000000000000aa", adapter="bad:1", digest="sha256:aa")
GOOD = Target(engine_name="good@00000000000000bb", adapter="good:1", digest="sha256:bb")
BASE = Target(engine_name="tidewell")


def test_reports_are_written_in_order_and_those_that_fail_wait_for_the_next_turn(tmp_path: Path) -> None:
    written: list[Poison] = []
    away = True

    def tell(poison: Poison) -> None:
        if away and written:
            raise OSError("the database is away")
        written.append(poison)

    poisons = Poisons(tell, "g", Metrics(tmp_path, "g"))
    for number, at in enumerate((2.0, 1.0, 3.0)):
        poisons.report(f"r{number}", BAD.engine_name, at, number == 1)
    with pytest.raises(OSError, match="away"):
        poisons.flush()
    assert poisons.waiting == 2
    away = False
    poisons.flush()
    assert [(poison.replica, poison.at) for poison in written] == [("r0", 2.0), ("r1", 1.0), ("r2", 3.0)]
    assert written[0] == Poison(replica="r0", engine_name=BAD.engine_name, at=2.0, gateway="g")
    assert [poison.contained for poison in written] == [False, True, False]
    assert poisons.waiting == 0


def test_a_version_is_kept_from_further_engines_until_the_fleet_has_had_time_to_decide(tmp_path: Path) -> None:
    now = 100.0
    poisons = Poisons(MemoryFleetStore().poison, "g", Metrics(tmp_path, "g"), clock=lambda: now)
    assert not poisons.blocked(BAD)
    poisons.block(BAD)
    assert poisons.blocked(BAD)
    assert not poisons.blocked(GOOD)
    now += BLOCKED_S
    assert not poisons.blocked(BAD)


@pytest.mark.parametrize(
    ("first", "target", "expected"),
    [
        ((BAD.engine_name,), BAD, False),
        ((BAD.engine_name,), GOOD, True),
        ((BAD.engine_name,), BASE, True),
        ((BAD.engine_name, GOOD.engine_name), GOOD, False),
        (("base",), GOOD, True),
        (("base",), BASE, True),
        ((), GOOD, False),
        ((), BASE, True),
        (("",), GOOD, False),
        (("",), BASE, True),
    ],
)
def test_victims_may_try_elsewhere_and_whoever_may_have_done_it_may_not(
    first: tuple[str, ...], target: Target, expected: bool
) -> None:
    assert may_try_elsewhere(EnginePoisoned("x", first=first), target) is expected


def test_where_all_was_contained_there_are_no_victims_and_only_the_base_may_try_elsewhere() -> None:
    error = EnginePoisoned("x", first=(BAD.engine_name,), contained=True)
    assert [may_try_elsewhere(error, target) for target in (BAD, GOOD, BASE)] == [False, False, True]
