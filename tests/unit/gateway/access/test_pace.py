"""How much one name may do in a minute."""

from __future__ import annotations

from gateway.access.pace import Pace


def test_no_sixty_seconds_hold_more_than_is_allowed() -> None:
    pace, taken = Pace(10), []
    for tenth in range(3000):
        now = 1000.05 + tenth / 10
        if pace.take({"u": 1}, now) == 0:
            taken.append(now)
    assert len(taken) >= 40  # five minutes of ten, but for the second that is lost with each
    for at in taken:
        assert sum(at <= other < at + 60 for other in taken) <= 10


def test_it_says_when_the_same_fits_and_then_it_does() -> None:
    pace = Pace(10)
    assert pace.take({"u": 4}, 1000.5) == 0
    assert pace.take({"u": 6}, 1010.2) == 0
    wait_s = pace.take({"u": 3}, 1020.75)
    assert wait_s == 1061 - 1020.75
    assert pace.take({"u": 3}, 1020.75 + wait_s - 0.01) != 0
    assert pace.take({"u": 3}, 1020.75 + wait_s) == 0


def test_one_without_room_holds_up_all_and_takes_none_of_it() -> None:
    pace = Pace(2)
    assert pace.take({"a": 2}, 5.0) == 0
    assert pace.take({"a": 1, "b": 2}, 5.0) == 61.0
    assert pace.take({"b": 2}, 5.0) == 0


def test_more_at_once_than_a_minute_allows_never_fits() -> None:
    pace = Pace(2)
    assert pace.take({"a": 3}, 5.0) is None
    assert pace.take({"a": 2}, 5.0) == 0
    assert pace.take({}, 5.0) == 0


def test_names_that_say_nothing_any_more_are_forgotten() -> None:
    pace = Pace(2)
    for number in range(20_000):
        assert pace.take({f"u-{number}": 2}, 1000.0 + number / 10) == 0
    assert len(pace._done) <= 4096
    assert pace.take({"u-19999": 1}, 3000.0) != 0
