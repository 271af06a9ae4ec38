"""Metrics in shared memory: each process writes a file of numbers of its own, and whoever renders reads them all.

Updating a metric is one addition in mapped memory: no lock, no system call. A file outlives its process, so a restarted
one goes on counting where it stopped. Where things stand in a file: layout.py.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import threading
from bisect import bisect_left
from pathlib import Path
from typing import TypeVar

import orjson

from monitoring.telemetry.layout import (
    DIRECTORY_AT,
    LENGTH_WORD,
    SUFFIX,
    VALUE_BYTES_MAX,
    Layout,
    Region,
    entries,
    layout_of,
)
from monitoring.telemetry.names import OTHER

_WRITERS_MAX = 8
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class Counter:
    """Only goes up. Not for two threads at once, like everything that `Metrics` hands out."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: memoryview[float], at: int) -> None:
        self._cells, self._at = cells, at

    def add(self, amount: float = 1.0) -> None:
        if amount < 0:
            raise ValueError(f"A counter only goes up; found {amount}.")
        self._cells[self._at] += amount


class Gauge:
    """Says how much there is now; forgotten when its process ends."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: memoryview[float], at: int) -> None:
        self._cells, self._at = cells, at

    def set(self, value: float) -> None:
        self._cells[self._at] = value


class Histogram:
    """Counts values by bucket; a value equal to a bound belongs to that bound's bucket."""

    __slots__ = ("_at", "_bounds", "_cells", "_sum")

    def __init__(self, cells: memoryview[float], at: int, bounds: tuple[float, ...]) -> None:
        self._cells, self._at, self._bounds, self._sum = cells, at, bounds, at + len(bounds) + 1

    def observe(self, value: float) -> None:
        cells = self._cells
        cells[self._at + bisect_left(self._bounds, value)] += 1.0
        cells[self._sum] += value


_Kind = TypeVar("_Kind", Counter, Gauge, Histogram)


class Metrics:
    """The metrics of this process. `worker` names its file and stays the same over restarts.

    Where a label is open, each metric tells `series_max` label sets apart; further ones are counted with that label
    `other`. Raises OSError when the file cannot be made: its space is taken at once, so a full disk cannot hurt later.
    """

    def __init__(self, folder: Path, worker: str, *, series_max: int = 128) -> None:
        if not _NAME.fullmatch(worker):
            raise ValueError(f"A worker's name is 1 to 64 letters, digits and . _ -; found {worker!r}.")
        self._layout = Layout.of(series_max)
        self._turn = threading.Lock()
        self._handle = _open(folder, worker, self._layout)
        self._map = mmap.mmap(self._handle, self._layout.bytes)
        self._bytes = memoryview(self._map)
        self._words = self._bytes[:DIRECTORY_AT].cast("Q")
        self._cells: memoryview[float] = self._bytes[self._layout.cells_at :].cast("d")
        self._series: dict[tuple[str, tuple[str, ...]], int] = {}
        self._counts: dict[str, int] = {}
        self._handles: dict[tuple[str, tuple[tuple[str, str], ...]], Counter | Gauge | Histogram] = {}
        for name, at, values in entries(self._bytes):
            self._series[name, values] = at
            self._counts[name] = self._counts.get(name, 0) + 1
            if self._layout.regions[name].metric.kind == "gauge":
                self._cells[at] = 0.0

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter of one label set. Keep it where it is used often: finding it costs more than using it."""
        return self._find(Counter, name, labels)

    def gauge(self, name: str, **labels: str) -> Gauge:
        """The gauge of one label set."""
        return self._find(Gauge, name, labels)

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram of one label set."""
        return self._find(Histogram, name, labels)

    def close(self) -> None:
        """Let go of the file, which keeps its counts. What was handed out cannot be used any more."""
        for view in (self._words, self._cells, self._bytes):
            view.release()
        self._map.close()
        os.close(self._handle)

    def _find(self, kind: type[_Kind], name: str, labels: dict[str, str]) -> _Kind:
        handle = self._handles.get((name, tuple(labels.items()))) or self._make(name, labels)
        if not isinstance(handle, kind):
            raise ValueError(f"{name} is a {type(handle).__name__}, not a {kind.__name__}.")
        return handle

    def _make(self, name: str, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        region = self._layout.regions.get(name)
        if region is None or labels.keys() != {label.name for label in region.metric.labels}:
            declared = "not declared" if region is None else f"labelled {[each.name for each in region.metric.labels]}"
            raise ValueError(f"{name} is {declared} in monitoring/telemetry/names.py; found labels {sorted(labels)}.")
        values = tuple(_bounded(label.values, labels[label.name]) for label in region.metric.labels)
        with self._turn:
            at = self._place(region, values)
        handle: Counter | Gauge | Histogram
        if region.metric.kind == "histogram":
            handle = Histogram(self._cells, at, region.metric.buckets)
        else:
            handle = (Counter if region.metric.kind == "counter" else Gauge)(self._cells, at)
        if len(self._handles) < 4 * self._layout.series:  # values beyond the bound are not remembered one by one
            self._handles[name, tuple(labels.items())] = handle
        return handle

    def _place(self, region: Region, values: tuple[str, ...]) -> int:
        """The first cell of a series, new or known. Its directory line is valid only once the length says so."""
        metric = region.metric
        known = self._series.get((metric.name, values))
        if known is not None:
            return known
        count = self._counts.get(metric.name, 0)
        joined = tuple(v if label.values else OTHER for label, v in zip(metric.labels, values, strict=True))
        if count >= region.told_apart and values != joined:
            return self._place(region, joined)
        at = region.first + count * region.width
        line = orjson.dumps([metric.name, at, values], option=orjson.OPT_APPEND_NEWLINE)
        start = self._words[LENGTH_WORD]
        self._bytes[DIRECTORY_AT + start : DIRECTORY_AT + start + len(line)] = line
        self._words[LENGTH_WORD] = start + len(line)
        self._series[metric.name, values] = at
        self._counts[metric.name] = count + 1
        return at


def _bounded(allowed: tuple[str, ...] | None, value: str) -> str:
    """A label's value as it may be kept: of a closed set, or short and printable."""
    if allowed is not None:
        return value if value in allowed else OTHER
    return _UNPRINTABLE.sub("?", value).encode("utf-8", "replace")[:VALUE_BYTES_MAX].decode("utf-8", "ignore")


def _open(folder: Path, worker: str, layout: Layout) -> int:
    """This worker's own file, locked until it is closed; a twin of it while an older process of that name drains."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(_WRITERS_MAX):
        path = folder / f"{worker}{f'~{number}' if number else ''}{SUFFIX}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        found = os.fstat(handle)
        if found.st_nlink == 0:  # another process put its file in this one's place in between
            os.close(handle)
            continue
        if layout_of(os.pread(handle, DIRECTORY_AT, 0), found.st_size) is layout:
            return handle
        try:
            return _create(path, layout)
        finally:
            os.close(handle)
    raise BlockingIOError(f"{_WRITERS_MAX} processes named {worker} count in {folder} already.")


def _create(path: Path, layout: Layout) -> int:
    """A fresh file put in the place of one that an older version laid out: whoever reads that one may go on."""
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.posix_fallocate(handle, 0, layout.bytes)
        os.pwrite(handle, layout.header, 0)
        fresh.replace(path)
    except OSError:
        os.close(handle)
        raise
    return handle
