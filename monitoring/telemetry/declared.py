"""How a metric is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a label says when its true value is not in its set, or there are too many of them.
OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label with a closed set of values, or with an open one (None) of which the first so many are told apart."""

    name: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One declaration. `unit` is empty for plain counts; `across` says how the gauges of several processes join."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    unit: str = ""
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Literal["sum", "max"] = "sum"
