"""`report:` sends each step's numbers where people watch trainings; into the run's folder unless told otherwise."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from training.base import PATH
from training.recipes.errors import BadRecipe
from training.recipes.progress import Heard, Stepped
from training.recipes.recipe import build

pytest.importorskip("trl")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def losses(out: Path, report: list[str]) -> list[float]:
    from training.recipes.run import run

    fields: dict[str, Any] = {
        "name": "told",
        "method": "sft",
        "data": {"train": "tidewell:corrected_fact", "rows_max": 16},
        "optim": {"learning_rate": 2e-3, "steps": 3, "batch": 4},
        "report": report,
    }
    heard = Heard()
    run(build(fields), out, base=PATH, progress=heard)
    return [event.numbers["loss"] for event in heard.events if isinstance(event, Stepped)]


def test_tensorboard_has_every_step(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    said = losses(tmp_path / "run", ["tensorboard"])
    board = accumulators.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    seen = board.Scalars("train/loss")
    assert [one.step for one in seen] == [1, 2, 3]
    assert [one.value for one in seen] == pytest.approx(said, abs=1e-4)


def test_mlflow_has_every_step_under_the_recipes_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    said = losses(tmp_path / "run", ["mlflow"])
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (kept,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert kept.info.run_name == "told"
    assert kept.info.status == "FINISHED"
    assert [one.value for one in client.get_metric_history(kept.info.run_id, "loss")] == pytest.approx(said, abs=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}, "nothing is written where the process stands"


@pytest.mark.skipif(find_spec("wandb") is not None, reason="W&B is installed, so it is passed through")
def test_what_is_not_installed_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"report: wandb cannot be used.*pip install wandb"):
        losses(tmp_path / "run", ["wandb"])
