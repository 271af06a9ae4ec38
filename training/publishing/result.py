"""A run's numbers as OpenAI's clients know them: the result file of a job, one line a step."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Final

from training.publishing.curves import Curves, read

FILE: Final = "result.csv"
COLUMNS: Final = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
#: TRL's names, the first that is there: preference methods tell how often the wanted answer is the likelier one.
_TRAIN: Final = ("mean_token_accuracy", "rewards/accuracies", "accuracy")
_HELD: Final = ("eval_mean_token_accuracy", "eval_rewards/accuracies", "eval_accuracy")


def result(curves: Curves) -> str:
    """The CSV; what was not measured at a step is empty."""
    held = {point.step: point.numbers for point in curves.held}
    told = {point.step: point.numbers for point in curves.steps}
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(COLUMNS)
    for step in sorted(told.keys() | held.keys()):
        ours, theirs = told.get(step, {}), held.get(step, {})
        lines.writerow(
            [step, _number(ours, "loss"), _number(ours, *_TRAIN), _number(theirs, "eval_loss"), _number(theirs, *_HELD)]
        )
    return out.getvalue()


def write_result(run: Path) -> Path:
    """`result.csv` in the run's folder, whole or not at all."""
    path, building = run / FILE, run / f".{FILE}"
    building.write_text(result(read(run)), encoding="utf-8")
    building.replace(path)
    return path


def _number(numbers: object, *names: str) -> str:
    found = numbers if isinstance(numbers, dict) else {}
    value = next((found[name] for name in names if name in found), None)
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"
