"""What a plot is drawn of. The picture itself is matplotlib's."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import MissingExtra
from gateway.errors import BadField
from gateway.verbs.plot import POINTS_MAX, draw, lines

EXPERIMENT = {
    "id": "exp-1",
    "name": "support",
    "alias": "live",
    "stage": "running",
    "metrics": [{"name": "up", "margin": 0.0}, {"name": "errors", "margin": 0.02}, {"name": "length", "margin": 0.0}],
}


def ruling(at: float, **changes: Any) -> dict[str, Any]:
    def estimate(metric: str, role: str) -> dict[str, Any]:
        known = {"estimate": at, "lower": at - 1, "upper": at + 1}
        return {"metric": metric, "role": role, "arm": "new", **known, **changes}

    estimates = [estimate("errors", "guardrail"), estimate("length", "diagnostic"), estimate("up", "primary")]
    return {"at": at, "numbers": {"estimates": estimates}}


def test_the_primary_comes_first_and_time_runs_forward() -> None:
    found = lines([ruling(3.0), ruling(2.0, lower=None), {"at": 1.0, "numbers": {}}])
    assert [(line.metric, line.role) for line in found] == [("up", "primary"), ("errors", "guardrail")]
    assert found[0].estimate == [2.0, 3.0]
    assert math.isnan(found[0].lower[0])
    assert found[0].lower[1] == 2.0


@pytest.mark.parametrize("looks", [1, POINTS_MAX, POINTS_MAX + 1, 10_000])
def test_many_looks_are_thinned_and_the_last_is_there(looks: int) -> None:
    (primary, _) = lines([ruling(float(at)) for at in reversed(range(looks))])
    assert len(primary.at) <= POINTS_MAX + 1
    assert primary.estimate[-1] == looks - 1
    assert primary.estimate == sorted(set(primary.estimate))


def test_without_matplotlib_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match="matplotlib"):
        draw(EXPERIMENT, [ruling(1.0)], tmp_path / "x.png")


@pytest.mark.slow
def test_a_picture_is_written_or_refused(tmp_path: Path) -> None:
    draw(EXPERIMENT, [ruling(2.0, upper=None), ruling(1.0)], tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadField, match="Nothing can be drawn yet"):
        draw(EXPERIMENT, [], tmp_path / "y.png")
    with pytest.raises(BadField, match="cannot be written"):
        draw(EXPERIMENT, [ruling(1.0)], tmp_path / "none" / "y.png")
