"""Where the numbers of each step go besides the events: the callbacks of `report:`. Heavy inside its functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.launchers.section import REPORTS, Report
from training.recipes.errors import BadRecipe


def reporters(report: Sequence[Report], out: Path) -> list[Any]:
    """Transformers' own callbacks. Where nothing else is configured, they write into the run's folder.

    MLflow and W&B read their own environment (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT, …), which a
    launcher passes on. Raises BadRecipe for what is not installed.
    """
    from transformers import integrations

    found: list[Any] = []
    missing = []
    for name in report:
        try:
            if name == "tensorboard":
                board = integrations.TensorBoardCallback()
                board.logging_dir = board.logging_dir or str(out / "tensorboard")
                found.append(board)
            elif name == "mlflow":
                found.append(integrations.MLflowCallback())
                _own_store(out)
            else:
                found.append(integrations.WandbCallback())
        except (RuntimeError, ImportError) as error:
            missing.append(f"report: {name} cannot be used: {error} Here: {REPORTS[name]}")
    if missing:
        raise BadRecipe(missing)
    return found


def _own_store(out: Path) -> None:
    """Without a tracking server MLflow would write into whatever folder the process stands in."""
    import mlflow

    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri(f"sqlite:///{out.absolute() / 'mlflow.db'}")
