"""The permanent A/A self-test: where it should be, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.errors import BadName
from adapters.experiments.errors import BadExperiment
from adapters.experiments.values import Experiment, Stage
from gateway.experimenting.opening import SELFTEST, stop_experiment
from gateway.experimenting.selftest import RENEW_S, SelfTest
from tests.unit.gateway.experimenting.hall import NOW, Hall


def keeper(hall: Hall, now: float = NOW) -> SelfTest:
    control: Any = hall
    return SelfTest(control, hall.settings, clock=lambda: now)


def running(hall: Hall) -> Experiment:
    (found,) = hall.experiments.list(active=True)
    return found


def test_it_compares_what_the_alias_points_at_with_itself() -> None:
    hall = Hall(selftest_alias="support@live")
    keeper(hall).keep()
    test = running(hall)
    assert (test.selftest, test.opened_by, test.share) == (True, SELFTEST, 5000)
    assert [arm.number for arm in test.arms] == [1, 1]
    keeper(hall, NOW + 1).keep()
    assert running(hall) == test


def test_it_waits_while_somebody_tests_there_and_begins_when_that_has_ended() -> None:
    hall = Hall(selftest_alias="support")
    control: Any = hall
    real = hall.open()
    keeper(hall).keep()
    assert running(hall) == real
    stop_experiment(control, real.id, who="ann", why="", now=NOW + 1)
    keeper(hall, NOW + 2).keep()
    assert running(hall).opened_by == SELFTEST


def test_it_begins_anew_after_a_week() -> None:
    hall = Hall(selftest_alias="support@live")
    keeper(hall).keep()
    first = running(hall)
    keeper(hall, NOW + RENEW_S).keep()
    second = running(hall)
    assert second.salt != first.salt
    assert hall.experiments.get(first.id).stage is Stage.STOPPED


@pytest.mark.parametrize("asked", ["", "support@candidate"])
def test_it_stops_where_it_is_not_asked_for_any_more(asked: str) -> None:
    hall = Hall(selftest_alias="support@live")
    keeper(hall).keep()
    hall.selftest_alias = asked
    keeper(hall).keep()
    assert hall.experiments.list(active=True) == ()


def test_there_is_nothing_to_test_before_the_alias_is_there() -> None:
    hall = Hall(selftest_alias="support@live")
    hall.rows.live = None
    keeper(hall).keep()
    assert hall.experiments.list() == ()


@pytest.mark.parametrize(("asked", "refusal"), [("support:7", BadExperiment), ("Support!", BadName)])
def test_a_setting_that_names_no_alias_is_refused(asked: str, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        keeper(Hall(selftest_alias=asked)).keep()
