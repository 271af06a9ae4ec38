"""The bench measures a real build, and says which bound is missed."""

from __future__ import annotations

import pytest

from training.data.bench import LARGE, Measured, _missed, measure

pytest.importorskip("pyarrow")
pytest.importorskip("transformers")


@pytest.mark.slow
@pytest.mark.parametrize("store", [False, True])
def test_a_small_measure_compiles_its_records(store: bool) -> None:
    found = measure(400, store=store)
    assert found.records == 400
    assert 200 < found.rows <= 400  # one in ten is nearly the same as another
    assert found.per_s > 50
    assert found.tokens > 50


def test_every_bound_that_is_missed_is_named() -> None:
    good = Measured(records=LARGE, cpu_s=100.0, wall_s=1.0, rows=1, tokens=1.0, index_bytes=200.0, peak_mib=1.0)
    bad = Measured(records=LARGE, cpu_s=1e6, wall_s=1.0, rows=1, tokens=1.0, index_bytes=301.0, peak_mib=1.0)
    assert not list(_missed(good, 0.0))
    assert len(list(_missed(bad, 1e9))) == 3
