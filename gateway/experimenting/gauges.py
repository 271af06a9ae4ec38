"""What a look found, as metrics: by alias and not by experiment, for of those there are ever more."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from adapters.experiments.analysis import MISSING_MAX, MIXED_MAX
from adapters.experiments.decide import ALARM
from adapters.experiments.values import Experiment, Ruling, Stage, Verdict
from monitoring.telemetry.shared import Gauge, Metrics

_Row = tuple[str, dict[str, str], float]
_BOUND = "bound"


class Gauges:
    """Sets gauges, and clears those of which nothing is known any more. Not for two threads at once."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._set: dict[str, dict[Gauge, float]] = {}  # by alias: what was set, and what it is cleared to

    def told(self, experiment: Experiment, ruling: Ruling, broken: Collection[str]) -> None:
        """The experiment as it stands after a look, and what the look said."""
        alias = f"{experiment.name}@{experiment.alias}"
        before, now = self._set.get(alias, {}), {}
        for name, labels, value in _rows(experiment, ruling, broken):
            gauge = self._metrics.gauge(f"graftline_experiment_{name}", alias=alias, **labels)
            gauge.set(value)
            now[gauge] = math.nan if name == _BOUND else 0.0
        _clear({gauge: value for gauge, value in before.items() if gauge not in now})
        self._set[alias] = now

    def keep(self, aliases: Collection[str]) -> None:
        """Only on these does something run."""
        for alias in [alias for alias in self._set if alias not in aliases]:
            _clear(self._set.pop(alias))


def _rows(experiment: Experiment, ruling: Ruling, broken: Collection[str]) -> Iterator[_Row]:
    """Name, further labels and value of each gauge."""
    numbers = ruling.numbers
    for stage in Stage:
        yield "stage", {"stage": str(stage)}, float(stage is experiment.stage)
    for verdict in Verdict:
        yield "verdict", {"verdict": str(verdict)}, float(verdict is ruling.verdict)
    yield "share", {}, experiment.share / 1e4
    yield "looked_timestamp_seconds", {}, ruling.at
    yield "srm", {}, experiment.srm / -math.log(experiment.srm_alpha)
    yield "broken", {}, float(bool(broken) or _untrusted(numbers))
    yield "selftest_alarms", {}, float(sum(reason.startswith(ALARM) for reason in ruling.reasons))
    for arm, units in numbers.get("units", {}).items():
        yield "units", {"arm": arm}, float(units)
    for found in numbers.get("estimates", ()):
        for side in ("estimate", "lower", "upper"):
            value = math.nan if found[side] is None else float(found[side])
            yield _BOUND, {"arm": found["arm"], "metric": found["metric"], "side": side}, value


def _untrusted(numbers: Mapping[str, Any]) -> bool:
    return bool(numbers.get("missing", 0.0) > MISSING_MAX or numbers.get("mixed", 0.0) > MIXED_MAX)


def _clear(gauges: Mapping[Gauge, float]) -> None:
    for gauge, value in gauges.items():
        gauge.set(value)
