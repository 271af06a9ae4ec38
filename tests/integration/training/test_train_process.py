"""A recipe as a process: its output is events and nothing else, and whoever starts it needs no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.verbs.train import events
from training.recipes.progress import Began, Chose, Failed, Finished, Planned, Stepped

pytestmark = pytest.mark.slow
RECIPE = """
name: desk
method: sft
data: {train: "tidewell:corrected_fact", rows_max: 16}
optim: {learning_rate: 2e-3, steps: 2, batch: 4}
"""


def command(recipe: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "training.recipes", str(recipe), "--out", str(out), *more]


def test_a_run_tells_events_from_choices_to_its_adapter(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    heard = list(events(command(recipe, tmp_path / "run")))
    kinds = [type(event) for event in heard]
    assert kinds.index(Chose) < kinds.index(Began) < kinds.index(Stepped) < kinds.index(Finished)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    kept = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in kept] == [kind.__name__.lower() for kind in kinds]
    again = list(events(command(recipe, tmp_path / "run")))
    assert isinstance(again[-1], Failed)
    assert again[-1].code == "output_exists"


def test_a_plan_says_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("sft", "auto"))
    heard = list(events(command(recipe, tmp_path / "run", "--plan")))
    planned = next(event for event in heard if isinstance(event, Planned))
    assert {"python and libraries", "base weights", "optimizer"} <= planned.memory.keys()
    assert planned.steps == 2
    assert planned.seconds > 2 * planned.step_s > 0
    assert isinstance(heard[-1], Began)
    assert any(isinstance(event, Chose) and event.key == "method" and event.value == "sft" for event in heard)
    assert not (tmp_path / "run").exists()


def test_a_bad_recipe_ends_with_its_problems(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE + "lernrate: 3\n")
    heard = list(events(command(recipe, tmp_path / "run")))
    assert len(heard) == 1
    assert not (tmp_path / "run").exists()
    assert isinstance(heard[0], Failed)
    assert heard[0].code == "bad_recipe"
    assert "lernrate: unknown key" in heard[0].message


def test_the_verb_and_the_recipe_need_no_torch() -> None:
    script = "import sys, gateway.verbs.train, training.recipes.rows, training.recipes.watch\n"
    script += "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'datasets') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
