"""What can go wrong in this room.

StatisticsError
└── BadSample    the numbers given cannot be what the method assumes: not finite, out of bounds, of unequal length
"""

from __future__ import annotations

from typing import ClassVar


class StatisticsError(Exception):
    """Anything that this room refuses."""

    code: ClassVar[str] = "statistics_error"
    retryable: ClassVar[bool] = False


class BadSample(StatisticsError):
    code = "bad_sample"
