"""`report:` sends each step's numbers where people watch trainings; into the run's folder unless told otherwise."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.beside import beside
from training.base import PATH
from training.recipes.errors import BadRecipe
from training.recipes.progress import Heard, Stepped
from training.recipes.recipe import build

pytest.importorskip("trl")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RECIPE: dict[str, Any] = {
    "name": "told",
    "method": "sft",
    "data": {"train": "tidewell:corrected_fact", "rows_max": 16},
    "optim": {"learning_rate": 2e-3, "steps": 3, "batch": 4},
}
#: As much of W&B as transformers asks for; it keeps what it is told.
WANDB = """
class Error(Exception):
    pass

class Run:
    def __init__(self, told):
        self.told, self.id, self.name, self.summary, self.labels = told, "1", told["name"], {}, {}
    def _label(self, **labels):
        self.labels |= labels

class Config(dict):
    def update(self, numbers, allow_val_change):
        super().update(numbers)

run, config, logged, away = None, Config(), [], ""

def init(**told):
    global run
    if away:
        raise Error(away)
    run = Run(told)

def define_metric(*names, **told):
    pass

def log(numbers):
    logged.append(numbers)
"""


def losses(out: Path, report: list[str], **more: Any) -> list[float]:
    from training.recipes.run import run

    heard = Heard()
    run(build({**RECIPE, "report": report, **more}), out, base=PATH, progress=heard)
    return [event.numbers["loss"] for event in heard.events if isinstance(event, Stepped)]


def test_tensorboard_has_every_step(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    said = losses(tmp_path / "run", ["tensorboard"])
    board = accumulators.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    seen = board.Scalars("train/loss")
    assert [one.step for one in seen] == [1, 2, 3]
    assert [one.value for one in seen] == pytest.approx(said, abs=1e-4)


def test_mlflow_has_every_step_under_the_recipes_name(tmp_path: Path) -> None:
    """As a run of `graftline train` does it, in an environment that has MLflow besides."""
    library = beside("mlflow", "mlflow-skinny>=3.6,<4", "alembic>=1.16,<2", scratch=tmp_path)
    (tmp_path / "recipe.yaml").write_text(json.dumps({**RECIPE, "report": ["mlflow"]}))
    (tmp_path / "elsewhere").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    argv = [sys.executable, "-m", "training.recipes", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*argv, "--base", str(PATH)], env={**env, "PYTHONPATH": str(library)}, cwd=tmp_path / "elsewhere",
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    said = [event["numbers"]["loss"] for event in events if event["event"] == "stepped"]
    assert len(said) == 3
    with closing(sqlite3.connect(tmp_path / "run" / "mlflow.db")) as store:
        assert store.execute("SELECT name, status FROM runs").fetchall() == [("told", "FINISHED")]
        kept = store.execute("SELECT step, value FROM metrics WHERE key = 'loss' ORDER BY step").fetchall()
        parameters = dict(store.execute("SELECT key, value FROM params").fetchall())
    assert [step for step, _ in kept] == [1, 2, 3]
    assert [loss for _, loss in kept] == pytest.approx(said, abs=1e-4)
    assert float(parameters["learning_rate"]) == RECIPE["optim"]["learning_rate"]
    assert not list((tmp_path / "elsewhere").iterdir()), "nothing is written where the process stands"


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that stands in for W&B, for as long as a test lasts."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
            del sys.modules[name]

    forget()
    library = tmp_path / "library" / "wandb"
    (library / "sdk" / "lib").mkdir(parents=True)
    (library / "__init__.py").write_text(WANDB)
    for package in (library / "sdk", library / "sdk" / "lib"):
        (package / "__init__.py").touch()
    (library / "sdk" / "lib" / "config_util.py").write_text("class ConfigError(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(str(library.parent))
    for name in ("WANDB_LOG_MODEL", "WANDB_WATCH", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    yield importlib.import_module("wandb")
    forget()


def test_a_run_stands_where_the_recipe_says_on_wandb(tmp_path: Path, wandb: Any) -> None:
    place = {"project": "shop", "entity": "ours", "name": "night run", "tags": ["kind", "small"]}
    said = losses(tmp_path / "run", ["wandb"], wandb=place)
    assert wandb.run.told == {**place, "dir": str(tmp_path / "run")}
    steps = [(line["train/global_step"], line["train/loss"]) for line in wandb.logged if "train/loss" in line]
    assert [step for step, _ in steps] == [1, 2, 3]
    assert [loss for _, loss in steps] == pytest.approx(said, abs=1e-4)
    assert wandb.config["learning_rate"] == 2e-3


def test_what_a_recipe_leaves_out_is_for_wandb_to_know(tmp_path: Path, wandb: Any) -> None:
    losses(tmp_path / "run", ["wandb"])
    told = {"project": None, "entity": None, "name": "told", "tags": None}
    assert wandb.run.told == {**told, "dir": str(tmp_path / "run")}


def test_a_run_that_wandb_does_not_take_ends_before_its_first_step(tmp_path: Path, wandb: Any) -> None:
    wandb.away = "api_key not configured"
    with pytest.raises(BadRecipe, match="report: wandb takes no run: api_key not configured"):
        losses(tmp_path / "run", ["wandb"], wandb={"project": "shop"})
    assert wandb.logged == []


@pytest.mark.skipif(find_spec("wandb") is not None, reason="W&B is installed, so it is passed through")
def test_what_is_not_installed_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"report: wandb cannot be used.*pip install wandb"):
        losses(tmp_path / "run", ["wandb"])
