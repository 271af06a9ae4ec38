"""The README's picture: what it is drawn from, and that the one in the tree is of the recipes that stand beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer

from tests.unit.training.publishing.runs import evaluated, falling, steps, tell
from training.publishing.picture.__main__ import FILE, main
from training.recipes.recipe import Recipe, read

pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"
BYTES_MAX = 60_000


def run(folder: Path, name: str, method: str) -> Path:
    """A run's folder without its events."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"recipe": {"name": name}, "chosen": {"method": method}}))
    return folder


def heights(picture: Path, line: str) -> list[float]:
    """How far from the top each point of a line is."""
    group = next(each for each in ElementTree.parse(picture).iter(f"{SVG}g") if each.get("id") == line)
    path = group.find(f"{SVG}path")
    assert path is not None
    return [float(y) for _, y in re.findall(r"[ML] (\S+) (\S+)", path.get("d", ""))]


def words(picture: Path) -> list[str]:
    return [each.text or "" for each in ElementTree.parse(picture).iter(f"{SVG}text")]


def recipe(name: str) -> Recipe:
    return read(FILE.with_name(name).read_text())


@pytest.mark.slow
def test_a_picture_shows_each_step_that_the_runs_told(tmp_path: Path) -> None:
    losses, held = falling(12, noise=0.0), {4: 2.0, 8: 1.0, 12: 0.9}
    supervised = tell(run(tmp_path / "a", "returns", "sft"), steps(losses), evaluated(held))
    rewarded = run(tmp_path / "b", "polite", "grpo")
    for at in range(1, 10):
        numbers = {"loss": 0.0, "reward": at / 9, "kl": at / 90}
        tell(rewarded, [{"event": "stepped", "step": at, "steps": 9, "numbers": numbers}])
    out = tmp_path / "out.svg"
    main(supervised, rewarded, out)

    assert {"returns (SFT): loss", "polite (GRPO): reward", "training", "held out"} <= {*words(out)}
    down = heights(out, "loss-training")
    assert len(down) == 12
    assert down == sorted(down)  # what falls comes further from the top
    assert len(heights(out, "loss-held")) == 3
    for line in ("reward-training", "distance-training"):
        assert len(heights(out, line)) == 9
        assert heights(out, line) == sorted(heights(out, line), reverse=True)

    first = out.read_bytes()
    main(supervised, rewarded, out)
    assert out.read_bytes() == first
    tell(rewarded, [{"event": "stepped", "step": 10, "steps": 10, "numbers": {"reward": 0.0, "kl": 0.0}}])
    main(supervised, rewarded, out)
    assert len(heights(out, "reward-training")) == 10


def test_a_run_without_rewards_or_without_an_end_is_refused(tmp_path: Path) -> None:
    supervised = tell(run(tmp_path / "a", "returns", "sft"), steps(falling(12)))
    with pytest.raises(typer.BadParameter, match="told no reward"):
        main(supervised, supervised, tmp_path / "out.svg")
    unfinished = tmp_path / "b"
    unfinished.mkdir()
    tell(unfinished, steps(falling(12), reward=1.0))
    with pytest.raises(typer.BadParameter, match=r"has no run\.json"):
        main(supervised, unfinished, tmp_path / "out.svg")


def test_the_picture_in_the_tree_is_of_the_recipes_beside_it() -> None:
    supervised, rewarded = recipe("sft.yaml"), recipe("grpo.yaml")
    assert FILE.stat().st_size < BYTES_MAX
    assert {f"{supervised.name} (SFT): loss", f"{rewarded.name} (GRPO): reward"} <= {*words(FILE)}
    every = supervised.optim.evaluate_every
    assert isinstance(every, int)
    assert isinstance(supervised.optim.steps, int)
    loss, held, reward = (heights(FILE, line) for line in ("loss-training", "loss-held", "reward-training"))
    assert len(loss) == supervised.optim.steps
    assert len(held) == supervised.optim.steps // every
    assert isinstance(rewarded.optim.steps, int)
    assert 10 < len(reward) <= rewarded.optim.steps  # it may end at rl.kl_max
    assert len(heights(FILE, "distance-training")) == len(reward)
    # The runs learnt what their recipes are about.
    assert loss[-1] > loss[0]
    assert held[-1] > held[0]
    assert reward[-1] < reward[0]
