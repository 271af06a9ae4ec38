"""What all processes counted, as Prometheus text."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from monitoring.telemetry.layout import DIRECTORY_AT, SUFFIX, entries, layout_of, width
from monitoring.telemetry.names import METRICS, Metric

#: Of what `render` returns.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Totals = dict[tuple[str, tuple[str, ...]], list[float]]


def render(folder: Path) -> bytes:
    """Prometheus text (format 0.0.4) of every process's file: counters and histograms summed, gauges as declared.

    Counts of processes that ended stay, their gauges do not. Files of another version of this code are left out.
    """
    totals: _Totals = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        _add(totals, path)
    lines: list[str] = []
    for metric in METRICS:
        if not metric.labels and metric.kind != "gauge":
            totals.setdefault((metric.name, ()), [0.0] * width(metric))  # so that alerts see zero
        series = sorted((values, cells) for (name, values), cells in totals.items() if name == metric.name)
        if series:
            lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}")
            for values, cells in series:
                lines += _samples(metric, values, cells)
    return ("\n".join(lines) + "\n").encode()


def total(folder: Path, name: str) -> float:
    """A counter of all processes together, whatever its labels say; processes that ended count too."""
    totals: _Totals = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        _add(totals, path)
    return sum(cells[0] for (metric, _), cells in totals.items() if metric == name)


def _add(totals: _Totals, path: Path) -> None:
    """Add one process's numbers."""
    handle = os.open(path, os.O_RDONLY)
    try:
        layout = layout_of(os.pread(handle, DIRECTORY_AT, 0), os.fstat(handle).st_size)
        if layout is None:
            return
        alive = _is_locked(handle)
        mapped = mmap.mmap(handle, layout.bytes, prot=mmap.PROT_READ)
    finally:
        os.close(handle)
    with mapped, memoryview(mapped) as data, data[layout.cells_at :] as tail, tail.cast("d") as cells:
        for name, at, values in entries(data):
            region = layout.regions[name]
            kind, across = region.metric.kind, region.metric.across
            if kind == "gauge" and not alive:
                continue
            found: list[float] = [*cells[at : at + region.width]]
            known = totals.get((name, values))
            if known is None:
                totals[name, values] = found
            else:
                join = max if kind == "gauge" and across == "max" else sum
                totals[name, values] = [join(pair) for pair in zip(known, found, strict=True)]


def _is_locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _samples(metric: Metric, values: tuple[str, ...], cells: list[float]) -> Iterator[str]:
    pairs = [f'{label.name}="{_escaped(value)}"' for label, value in zip(metric.labels, values, strict=True)]
    if metric.kind != "histogram":
        yield f"{metric.name}{_braces(pairs)} {_number(cells[0])}"
        return
    *buckets, total = cells
    counts = list(accumulate(buckets))
    for bound, count in zip((*map(_number, metric.buckets), "+Inf"), counts, strict=True):
        within = f'le="{bound}"'
        yield f"{metric.name}_bucket{_braces([*pairs, within])} {_number(count)}"
    yield f"{metric.name}_sum{_braces(pairs)} {_number(total)}"
    yield f"{metric.name}_count{_braces(pairs)} {_number(counts[-1])}"


def _braces(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
