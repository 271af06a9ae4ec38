"""The bench itself: it writes what it says, finds its own sums again, and fails when a bound is missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitoring.records import bench


def test_what_was_written_comes_out_of_the_analysis(tmp_path: Path) -> None:
    row = bench.measure(600, tmp_path)
    assert row.right
    assert min(row.insert_per_s, row.mib, row.analysis_s, row.page_ms) > 0
    assert "600 to 600 (1 times the rows): analysis 1.0 times" in bench.report([row, row])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"right": False}, "a sum is wrong"),
        ({"read_s": 1.9}, "the analysis took 2.10 s, of 2 s"),
        ({"insert_per_s": 5.0}, "5 inserts/s"),
        ({"page_ms": 500.0}, "a page of feedback took 500 ms"),
        ({"retention_s": 60.0}, "dropping a month took 60.0 s"),
    ],
    ids=str,
)
def test_each_bound_that_is_missed_is_named(change: dict[str, Any], said: str) -> None:
    held = bench.Measured(
        exposures=1_000_000,
        insert_per_s=20_000.0,
        mib=1000.0,
        read_s=0.5,
        join_s=0.1,
        count_s=0.1,
        page_ms=5.0,
        expire_s=5.0,
        retention_s=0.2,
        right=True,
    )
    assert bench.missed([held]) == []
    assert bench.missed([replace(held, exposures=10_000_000, read_s=19.0)]) == []
    found = bench.missed([held, replace(held, **change)])
    assert len(found) == 1
    assert said in found[0]
