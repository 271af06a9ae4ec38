"""Where the numbers of each step go besides the events: the callbacks of `report:`. Heavy inside its functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.launchers.section import REPORTS, Report, Wandb
from training.recipes.errors import BadRecipe


def reporters(report: Sequence[Report], out: Path, *, wandb: Wandb = Wandb()) -> list[Any]:  # noqa: B008 - frozen
    """Transformers' own callbacks. Where nothing else is configured, they write into the run's folder.

    MLflow and W&B read their own environment (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, WANDB_API_KEY, …), which a
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
                found.append(_wandb(wandb, out))
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


def _wandb(place: Wandb, out: Path) -> Any:
    """Transformers' callback takes a run that was begun already, and itself would begin one that only knows a project.

    W&B's own environment fills in what the recipe leaves out, so it is asked with None there, not with names of ours.
    """
    from transformers import integrations

    class Placed(integrations.WandbCallback):  # type: ignore[misc]
        def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero and self._wandb.run is None:
                try:
                    self._wandb.init(
                        project=place.project or None,
                        entity=place.entity or None,
                        name=place.name or args.run_name,
                        tags=list(place.tags) or None,
                        dir=str(out),
                    )
                except self._wandb.Error as error:  # no key, no such project, nobody there
                    raise BadRecipe([f"report: wandb takes no run: {error}"]) from error
            super().setup(args, state, model, **kwargs)

    return Placed()
