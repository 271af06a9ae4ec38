"""Sample-ratio mismatch: the evidence is a fair bet, and the checks are what they say."""

from __future__ import annotations

import math
from itertools import pairwise

import pyarrow as pa
import pytest
import tea_tasting as tt

from monitoring.statistics.errors import BadSample
from monitoring.statistics.mismatch import mismatch


def test_the_evidence_of_one_more_unit_is_a_fair_bet() -> None:
    """Under the assigned shares the expected next e-value is the present one: that is what makes it valid for ever."""
    for first, second in ((0, 0), (3, 9), (400, 380)):
        now = math.exp(mismatch((first, second), (1, 3)).log_evidence)
        after = [mismatch(counts, (1, 3)).log_evidence for counts in ((first + 1, second), (first, second + 1))]
        assert 0.25 * math.exp(after[0]) + 0.75 * math.exp(after[1]) == pytest.approx(now, rel=1e-9)


def test_the_final_check_agrees_with_tea_tasting() -> None:
    arms = pa.table({"variant": [0] * 470 + [1] * 530, "v": [1.0] * 1000})
    check = tt.Experiment(srm=tt.SampleRatio(1, method="norm", correction=False))
    theirs = check.analyze(arms)["srm"].pvalue
    assert mismatch((470, 530), (1, 1)).p_value == pytest.approx(theirs, abs=1e-6)


def test_the_further_the_shares_are_off_the_more_evidence_there_is() -> None:
    found = [mismatch((2500 - off, 2500 + off), (1, 1)) for off in (0, 100, 200, 300)]
    assert all(a.log_evidence < b.log_evidence for a, b in pairwise(found))
    assert not found[0].alarms(0.001)
    assert found[-1].alarms(0.001)
    assert found[-1].final(0.001)


def test_no_units_are_no_evidence() -> None:
    assert mismatch((0, 0), (1, 1)).log_evidence == 0
    assert mismatch((0, 0, 0), (1, 1, 2)).p_value == 1


@pytest.mark.parametrize(("counts", "shares"), [((1,), (1,)), ((1, 2), (1,)), ((-1, 2), (1, 1)), ((1, 2), (0, 1))])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, ...], shares: tuple[float, ...]) -> None:
    with pytest.raises(BadSample):
        mismatch(counts, shares)
