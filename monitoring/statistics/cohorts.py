"""Which units may be looked at: those whose outcome can no longer change because it was early or late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitoring.statistics.values import Array


def matured(first_exposed_s: Array, *, now_s: float, window_s: float) -> NDArray[np.bool_]:
    """Which units, (n,) booleans, were first exposed at least `window_s` seconds before `now_s`.

    Feedback that comes late comes later for some answers than for others. Whoever compares "what has come in so far"
    compares the delays: identical arms were told apart in nearly every run. A unit counts when its window has closed,
    with what came in within the window; then every unit had the same time.
    """
    return np.asarray(first_exposed_s <= now_s - window_s)


def within(at_s: Array, first_exposed_s: Array, *, window_s: float) -> NDArray[np.bool_]:
    """Which outcomes, (n,) booleans, came within their unit's window."""
    return np.asarray((at_s >= first_exposed_s) & (at_s <= first_exposed_s + window_s))
