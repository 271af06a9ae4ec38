"""The curves as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.publishing.runs import evaluated, falling, steps, tell
from training.publishing.curves import read, verdict
from training.publishing.plot import FILES, draw

pytest.importorskip("matplotlib")


@pytest.mark.slow
def test_the_same_curves_give_the_same_picture(tmp_path: Path) -> None:
    curves = read(tell(tmp_path, steps(falling(50), kl=0.1), evaluated({10: 1.0, 50: 0.8})))
    said = verdict(curves)
    made = draw(curves, said, "polite", tmp_path)
    assert tuple(path.name for path in made) == FILES
    first = [path.read_bytes() for path in made]
    assert first[1].startswith(b"\x89PNG")
    assert b"</svg>" in first[0]
    assert [path.read_bytes() for path in draw(curves, said, "polite", tmp_path)] == first
    empty = tmp_path / "empty"
    empty.mkdir()
    assert draw(read(empty), verdict(read(empty)), "nothing", empty)
