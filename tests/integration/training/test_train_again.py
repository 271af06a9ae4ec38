"""A version is trained again by what it carries of its own making: the same bytes come out, or what differs is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.control import Control, open_control
from gateway.settings import Settings
from gateway.verbs.train_again import Again, again
from training.base import PATH
from training.recipes.errors import BadRecipe
from training.recipes.progress import Heard
from training.recipes.recipe import build, read

pytest.importorskip("trl")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROW = '{{"prompt": "What is {0}?", "completion": "It is {0} indeed."}}\n'


def trained(settings: Settings, control: Control) -> None:
    """desk:1, made by a job of this installation from a file beside it."""
    from training.publishing.publish import publish
    from training.recipes.run import run

    rows = settings.home / "rows.jsonl"
    rows.write_text("".join(ROW.format(word) for word in ("soap", "tea", "rope", "wax")))
    optim = {"learning_rate": 2e-3, "steps": 2, "batch": 2}
    recipe = build({"name": "desk", "method": "auto", "data": {"train": str(rows)}, "optim": optim, "seed": 5})
    folder = settings.runs / "ftjob-1"
    run(recipe, folder, base=PATH, progress=Heard())
    publish(control.registry, folder, name="desk", who="test", job="ftjob-1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Control]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), probe="off")
    control = open_control(settings)
    trained(settings, control)
    return settings, control


def repeat(found: Again, folder: Path) -> list[str]:
    from training.recipes.run import run

    run(read(found.write(folder).read_text()), folder, base=PATH, progress=Heard())
    return list(found.after(folder))


def test_the_same_weights_come_out_bit_for_bit(home: tuple[Settings, Control], tmp_path: Path) -> None:
    found = again(*home, "desk:1")
    assert (found.recipe.method, found.recipe.seed, found.recipe.optim.steps) == ("sft", 5, 2)
    assert isinstance(found.recipe.optim.warmup_steps, int)
    assert list(found.before(PATH)) == []
    assert repeat(found, tmp_path / "again") == ["The weights are those of desk:1, bit for bit."]


def test_what_is_not_as_it_was_is_said(home: tuple[Settings, Control], tmp_path: Path) -> None:
    found = again(*home, "desk:1")
    told = json.loads(json.dumps(dict(found.document)))
    told["versions"]["peft"], told["base"]["digest"] = "0.0.1", "sha256:00"
    other = Again(version=found.version, folder=found.folder, document=told, recipe=found.recipe)
    assert [line.split(":")[0] for line in other.before(PATH)] == ["base", "peft"]
    changed = found.recipe.model_copy(update={"seed": 6})
    said = repeat(Again(version=found.version, folder=found.folder, document=told, recipe=changed), tmp_path / "other")
    assert said[0].startswith("base: sha256:00")
    assert said[-1].startswith("The weights are not those of desk:1, which was trained with")


def test_rows_that_are_gone_are_named(home: tuple[Settings, Control]) -> None:
    settings, control = home
    rows = settings.home / "rows.jsonl"
    kept = rows.read_text()
    rows.write_text(kept + ROW.format("ink"))
    try:
        with pytest.raises(BadRecipe, match="learnt from sha256:"):
            again(settings, control, "desk:1")
    finally:
        rows.write_text(kept)
