"""Who poisoned an engine, from the order of its reports."""

from __future__ import annotations

import pytest

from gateway.engines.blame import Blame, Count, blame, moved, suspects
from gateway.routing.store import Poison

BAD, OTHER, GOOD = "bad@00000000000000aa", "other@00000000000000cc", "good@00000000000000bb"
BASE = "tidewell"


def reports(*rows: tuple[str, float]) -> list[Poison]:
    return [Poison(replica="r", engine_name=name, at=at, gateway="g") for name, at in rows]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], Blame()),
        ([(BAD, 5)], Blame(withdraw=BAD)),
        ([(BAD, 5), (BASE, 6), (GOOD, 7)], Blame(withdraw=BAD, suspects=(GOOD,))),
        ([(GOOD, 7), (BAD, 5)], Blame(withdraw=BAD, suspects=(GOOD,))),
        ([(BASE, 5)], Blame()),
        ([(BASE, 5), (GOOD, 6)], Blame(suspects=(GOOD,))),
        ([(BAD, 5), (BASE, 5)], Blame(withdraw=BAD)),
        ([(BAD, 5), (BAD, 5)], Blame(withdraw=BAD)),
        ([(BAD, 5), (OTHER, 5)], Blame(suspects=(BAD, OTHER))),
        ([("", 5), (GOOD, 6)], Blame(suspects=(GOOD,))),
        ([("", 5), (BAD, 5)], Blame(suspects=(BAD,))),
        ([(OTHER, 1), (BAD, 5), (GOOD, 6)], Blame(withdraw=BAD, suspects=(GOOD,))),
    ],
    ids=[
        "nothing reported",
        "an adapter alone",
        "those after the first are suspects",
        "order is the engine's, not the reports'",
        "the base alone withdraws nobody",
        "an adapter after the base is a suspect",
        "the base in the same step changes nothing",
        "two requests of one adapter",
        "two adapters in one step: nobody can tell",
        "the first one's client had left",
        "one of the first step is unknown",
        "what was before the engine's start does not count",
    ],
)
def test_the_first_adapter_since_the_start_is_to_blame(rows: list[tuple[str, float]], expected: Blame) -> None:
    assert blame(reports(*rows), started_at=2.0) == expected


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, Count(started_at=1.0, corrupted=0), False),
        (None, Count(started_at=1.0, corrupted=2), True),
        (Count(started_at=1.0, corrupted=2), Count(started_at=1.0, corrupted=2), False),
        (Count(started_at=1.0, corrupted=2), Count(started_at=1.0, corrupted=3), True),
        (Count(started_at=1.0, corrupted=2), Count(started_at=9.0, corrupted=0), False),
        (Count(started_at=1.0, corrupted=2), Count(started_at=9.0, corrupted=1), True),
    ],
)
def test_a_count_moves_or_begins_anew_with_the_engine(before: Count | None, now: Count, expected: bool) -> None:
    assert moved(before, now) is expected


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        ([], Blame()),
        ([BASE], Blame()),
        ([BASE, BAD, BAD], Blame(withdraw=BAD)),
        ([GOOD, BAD, BASE], Blame(suspects=(BAD, GOOD))),
    ],
)
def test_without_a_name_only_one_who_ran_alone_is_to_blame(ran: list[str], expected: Blame) -> None:
    assert suspects(ran) == expected
