"""How fast experiments' records are, and how that grows: `python -m monitoring.records.bench [--large]`.

For n exposures of n / 5 units there are n answers and n / 5 words of feedback, over two months, written as the ingester
writes. Prints a table; exits with 1 when a bound is missed or a sum is wrong. Times are the best of three: what the
machine does besides is not ours.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from monitoring.records.events import Event, Exposure, Feedback, Inference, from_parts
from monitoring.records.joins import Joined, joined
from monitoring.records.sql import SqlRecords
from monitoring.records.sums import sums
from monitoring.statistics.values import Array

T = TypeVar("T")

BATCH = 500
SIZES = (10_000, 1_000_000)
LARGE = 10_000_000
MONTH_END = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
SPAN_S = 14 * 86_400.0
ARMS = ("old", "new")

#: Bounds at a million exposures. The others hold at every size.
ANALYSIS_S_MAX = 2.0
INSERT_PER_S_MIN = 2_000
PAGE_MS_MAX = 100.0
RETENTION_S_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column that the analysis asks for."""

    what: str
    parameter: str = ""
    window_s: float = SPAN_S

    @property
    def key(self) -> str:
        return self.what


#: A primary metric and the usual guardrails.
ASKED = (
    *(Column(what=name) for name in ("requests", "errors", "rated", "thumbs_up", "output_tokens", "regenerated")),
    Column(what="first_token_over", parameter="300"),
    Column(what="total_over", parameter="800"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One size. Rates are events a second; `ups` is what the table must sum to."""

    exposures: int
    insert_per_s: float
    mib: float
    read_s: float
    join_s: float
    count_s: float
    page_ms: float
    expire_s: float
    retention_s: float
    right: bool

    @property
    def analysis_s(self) -> float:
        return self.read_s + self.join_s + self.count_s


def measure(exposures: int, folder: Path) -> Measured:
    """Write, analyse, page, expire and drop `exposures` and what came of them in an empty folder."""
    store = SqlRecords(folder)
    spent, events = _write(store, exposures)
    size = sum(path.stat().st_size for path in folder.iterdir())
    read_s, trial = _best(lambda: store.trial("e1"))
    join_s, together = _best(lambda: joined(trial, arms=ARMS, unit_kind="user"))
    count_s, columns = _best(lambda: sums(together, ASKED))
    target = _words(exposures, exposures // 2 - exposures // 2 % BATCH)[0].target
    pages = ({"tenant": "acme"}, {"tenant": "acme", "target": target})
    page_s = max(_best(lambda page=page: store.feedback(**page))[0] for page in pages)  # type: ignore[misc]
    began = time.perf_counter()
    orphans = store.expire(MONTH_END + SPAN_S, 60.0)
    expire_s = time.perf_counter() - began
    began = time.perf_counter()
    gone = store.drop_before(MONTH_END)
    retention_s = time.perf_counter() - began
    rest = store.trial("e1").exposures.size
    store.close()
    return Measured(
        exposures=exposures,
        insert_per_s=events / spent,
        mib=size / 2**20,
        read_s=read_s,
        join_s=join_s,
        count_s=count_s,
        page_ms=page_s * 1e3,
        expire_s=expire_s,
        retention_s=retention_s,
        right=_right(together, columns, exposures)
        and orphans.expired == 0
        and gone == ["2026-11"]
        and 0 < rest < exposures,
    )


def missed(rows: list[Measured]) -> list[str]:
    """Which bounds were missed, in words."""
    found = []
    for row in rows:
        allowed = ANALYSIS_S_MAX * max(row.exposures / 1_000_000, 1.0)
        checks = (
            (row.right, "a sum is wrong"),
            (row.analysis_s <= allowed, f"the analysis took {row.analysis_s:.2f} s, of {allowed:.0f} s"),
            (row.insert_per_s >= INSERT_PER_S_MIN, f"{row.insert_per_s:.0f} inserts/s, of {INSERT_PER_S_MIN} at least"),
            (row.page_ms <= PAGE_MS_MAX, f"a page of feedback took {row.page_ms:.0f} ms, of {PAGE_MS_MAX:.0f}"),
            (
                row.retention_s <= RETENTION_S_MAX,
                f"dropping a month took {row.retention_s:.1f} s, {RETENTION_S_MAX:.0f}",
            ),
        )
        found += [f"{row.exposures:,} exposures: {said}" for held, said in checks if not held]
    return found


def report(rows: list[Measured]) -> str:
    """The table, and how it grows."""
    lines = [
        "exposures   insert/s     MiB   read s  join s  count s  analysis s  page ms  expire s  retention s",
        *(
            f"{row.exposures:>10,} {row.insert_per_s:>9,.0f} {row.mib:>7,.0f} {row.read_s:>8.3f} {row.join_s:>7.3f} "
            f"{row.count_s:>8.3f} {row.analysis_s:>11.3f} {row.page_ms:>8.1f} {row.expire_s:>9.2f} "
            f"{row.retention_s:>12.3f}"
            for row in rows
        ),
    ]
    for before, after in itertools.pairwise(rows):
        more = after.exposures / before.exposures
        rate = after.insert_per_s / before.insert_per_s
        lines.append(
            f"{before.exposures:,} to {after.exposures:,} ({more:.0f} times the rows): analysis "
            f"{after.analysis_s / before.analysis_s:.1f} times, insert rate {rate:.2f} "
            f"times, page {after.page_ms / before.page_ms:.1f} times."
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m monitoring.records.bench", description=__doc__)
    parser.add_argument("--large", action="store_true", help="also ten million: some 15 minutes and 12 GB of disk")
    parser.add_argument("--exposures", type=int, action="append", help="these sizes instead; may be repeated")
    parser.add_argument("--folder", type=Path, help="where the databases go while it runs; else the system's /tmp")
    given = parser.parse_args(arguments)
    rows = []
    for exposures in given.exposures or (*SIZES, LARGE)[: 3 if given.large else 2]:
        folder = Path(tempfile.mkdtemp(prefix="graftline-bench-", dir=given.folder))
        try:
            rows.append(measure(exposures, folder))
        finally:
            shutil.rmtree(folder)
    sys.stdout.write(report(rows) + "\n")
    found = missed(rows)
    sys.stdout.writelines(f"MISSED {each}\n" for each in found)
    return 1 if found else 0


def _write(store: SqlRecords, exposures: int) -> tuple[float, int]:
    """Seconds spent in the store, and how many events it took."""
    spent, written = 0.0, 0
    for number, batch in enumerate(_batches(exposures)):
        began = time.perf_counter()
        store.ingest("bench.spool", number + 1, batch)
        spent += time.perf_counter() - began
        written += len(batch)
        if sys.stderr.isatty() and number % 20 == 0:
            sys.stderr.write(f"\rwriting {exposures:,}: {min(number * BATCH / exposures, 1):.0%} ")
    return spent, written


def _batches(exposures: int) -> Iterator[list[Event]]:
    units = max(exposures // 5, 1)
    for start in range(0, exposures, BATCH):
        numbers = range(start, min(start + BATCH, exposures))
        ends = sorted(numbers, key=lambda n: n * 7_919 % 64 + n % BATCH)  # not in the order in which they began
        yield [*(_exposure(exposures, units, n) for n in numbers), *(_inference(exposures, units, n) for n in ends)]
        yield [*_words(exposures, start)]


def _exposure(exposures: int, units: int, number: int) -> Exposure:
    at = _at(exposures, number)
    unit = _unit(units, number)
    return Exposure(
        id=from_parts(int(at * 1000), 1, number),
        at=at,
        tenant="acme",
        experiment="e1",
        alias="support@live",
        unit=f"user-{unit}",
        unit_kind="user",
        arm=ARMS[unit % 2],
        digest="sha256:" + "ab" * 32,
        propensity=0.5,
        bucket=unit % 10_000,
        request_id=f"req-{number:032x}",
        completion_id=f"chatcmpl-{number:032x}",
    )


def _inference(exposures: int, units: int, number: int) -> Inference:
    at = _at(exposures, number)
    return Inference(
        id=from_parts(int(at * 1000), 2, number),
        completion_id=f"chatcmpl-{number:032x}",
        request_id=f"req-{number:032x}",
        tenant="acme",
        key_id="key-1",
        endpoint="chat",
        model="support",
        adapter="support:7",
        digest="sha256:" + "ab" * 32,
        experiment="e1",
        arm=ARMS[_unit(units, number) % 2],
        started_at=at,
        first_token_ms=100.0 + number % 400,
        total_ms=900.0,
        status=500 if number % 100 == 0 else 200,
        prompt_tokens=50,
        completion_tokens=20,
        user=f"user-{_unit(units, number)}",
    )


def _words(exposures: int, start: int) -> list[Feedback]:
    """One word for each fifth exposure of a batch."""
    said = []
    for number in range(start, min(start + BATCH, exposures), 5):
        at = _at(exposures, number) + 30.0
        said.append(
            Feedback(
                id=from_parts(int(at * 1000), 3, number),
                at=at,
                tenant="acme",
                target=f"chatcmpl-{number:032x}",
                kind="thumbs",
                rater="somebody",
                value=float(number % 10 == 0),
            )
        )
    return said


def _right(table: Joined, columns: dict[str, Array], exposures: int) -> bool:
    """The sums that were written must come out, whatever units they are spread over."""
    total = {name: column.sum() for name, column in columns.items()}
    return (
        table.unit.size == max(exposures // 5, 1)
        and total["requests"] == table.exposed.sum() == exposures
        and total["errors"] == len(range(0, exposures, 100))
        and total["thumbs_up"] == len(range(0, exposures, 10))
        and total["rated"] == len(range(0, exposures, 5))
        and not table.both.any()
        and table.unmatched == table.silent == 0
    )


def _at(exposures: int, number: int) -> float:  # half of them before the month's end
    return MONTH_END + SPAN_S * (number / exposures - 0.5)


def _unit(units: int, number: int) -> int:
    """Scattered, so that nothing profits from order."""
    return number * 7_919 % units


def _best(step: Callable[[], T]) -> tuple[float, T]:
    """The shortest of three runs, in seconds, and what the last one gave."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        result = step()
        took.append(time.perf_counter() - began)
    return min(took), result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
