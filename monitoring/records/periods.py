"""Months: the periods that records are kept in and dropped by. Pure; everything is UTC and follows the record's id."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from monitoring.records.events import MOMENT_MAX_S, from_parts, moment


def period_of(record_id: str) -> str:
    """The month in which a record's id was made, as `2026-11`."""
    return period_at(moment(record_id))


def period_at(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(_within(unix_s), UTC):%Y-%m}"


def bounds(period: str) -> tuple[float, float]:
    """Unix seconds of a month's first moment and of the first moment after it."""
    year, month = map(int, period.split("-"))
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp(), datetime(*following, 1, tzinfo=UTC).timestamp()


def least_id(unix_s: float) -> str:
    """No id that was made at or after this time sorts below it, and none made before sorts above."""
    return from_parts(round(_within(unix_s) * 1000), 0, 0)


def expired(periods: Iterable[str], before: float) -> list[str]:
    """The periods that lie wholly before a unix time, oldest first."""
    return sorted(period for period in periods if bounds(period)[1] <= before)


def _within(unix_s: float) -> float:
    return min(max(unix_s, 0.0), MOMENT_MAX_S - 1.0)
