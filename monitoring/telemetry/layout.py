"""Where everything stands in a file of metrics. Fixed by the declarations in names.py, so nothing can overflow.

header      magic, digest of the declarations, and the fifth word: how many bytes of the directory are valid
directory   a JSON line for each series: [metric, first cell, [label values]]
cells       8-byte floats: counter or gauge: 1; histogram: one for each bucket, one for above, one for the sum
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import orjson

from monitoring.telemetry.names import METRICS, Metric

SUFFIX = ".metrics"
DIRECTORY_AT = 64
LENGTH_WORD = 4
VALUE_BYTES_MAX = 80
#: The header's first bytes: files of another version's declarations differ in them.
STAMP = b"GLMETR01" + hashlib.sha256(repr(METRICS).encode()).digest()[:16]
#: A line's brackets, quotes and cell number.
_LINE_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where one metric's series stand: from cell `first` on, `width` cells each; open labels join past `told_apart`."""

    metric: Metric
    first: int
    width: int
    told_apart: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layout for one `series_max`. Sizes in bytes; `series` is how many there can be."""

    header: bytes
    regions: dict[str, Region]
    cells_at: int
    bytes: int
    series: int

    @staticmethod
    @lru_cache(maxsize=8)
    def of(series_max: int) -> Layout:
        """Room for `series_max` label sets of each metric with an open label, and for those that join the rest."""
        regions: dict[str, Region] = {}
        cells = directory = series = 0
        for metric in METRICS:
            joined = prod(len(label.values) + 1 for label in metric.labels if label.values)
            is_open = any(label.values is None for label in metric.labels)
            regions[metric.name] = Region(
                metric=metric, first=cells, width=width(metric), told_apart=series_max if is_open else joined
            )
            most = series_max * is_open + joined
            cells += most * width(metric)
            series += most
            directory += most * (len(metric.name) + _LINE_BYTES + len(metric.labels) * (2 * VALUE_BYTES_MAX + 3))
        cells_at = (DIRECTORY_AT + directory + 7) // 8 * 8
        return Layout(
            header=STAMP + series_max.to_bytes(8, "little"),
            regions=regions,
            cells_at=cells_at,
            bytes=cells_at + 8 * cells,
            series=series,
        )


def width(metric: Metric) -> int:
    """Cells of one series."""
    return len(metric.buckets) + 2 if metric.kind == "histogram" else 1


def layout_of(header: bytes, size: int) -> Layout | None:
    """The layout of a file by its first bytes; None where it is of another version, or not whole."""
    if len(header) < DIRECTORY_AT or not header.startswith(STAMP):
        return None
    layout = Layout.of(int.from_bytes(header[len(STAMP) : len(STAMP) + 8], "little"))
    return layout if layout.bytes == size else None


def entries(data: memoryview) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """The directory of a file: metric, first cell, label values."""
    length = data[:DIRECTORY_AT].cast("Q")[LENGTH_WORD]
    for line in bytes(data[DIRECTORY_AT : DIRECTORY_AT + length]).splitlines():
        name, at, values = orjson.loads(line)
        yield name, at, tuple(values)
