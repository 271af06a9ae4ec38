"""The curves as a picture, for people. matplotlib is imported here only; it comes with the extra `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from training.publishing.curves import Curves, CurveVerdict
from training.publishing.errors import NoPlot

FILES: Final = ("curves.svg", "curves.png")
#: One panel each, those that the run has: what is told of the training, and of the held-out rows.
_PANELS: Final = (
    ("loss", "loss", "eval_loss"),
    ("reward", "reward", "eval_reward"),
    ("nats from the reference", "kl", "eval_kl"),
    ("preferred is likelier", "rewards/accuracies", "eval_rewards/accuracies"),
    ("tokens right", "mean_token_accuracy", "eval_mean_token_accuracy"),
)
_PANELS_MAX = 3


def draw(curves: Curves, said: CurveVerdict, title: str, folder: Path) -> tuple[Path, ...]:
    """`curves.svg` and `curves.png` in the folder. Raises NoPlot."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPlot(f"Pictures need the extra 'plot' ({error}): pip install 'graftline[plot]'.") from error
    panels = [each for each in _PANELS if curves.series(each[1]) or curves.held_series(each[2])][:_PANELS_MAX]
    figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.4), layout="constrained")
    figure.suptitle(f"{title}: {said.word.replace('_', '-')}", fontsize=10)
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axis, (label, ours, theirs) in zip(axes, panels, strict=False):
        _panel(axis, label, curves.series(ours), curves.held_series(theirs))
    made = []
    # No clock and no random ids in it: the same curves give the same bytes.
    with rc_context({"svg.hashsalt": "graftline"}):
        for name in FILES:
            building = folder / f".{name}"
            kind = name.rpartition(".")[2]
            figure.savefig(
                building, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else {"Software": None}
            )
            building.replace(folder / name)
            made.append(folder / name)
    return tuple(made)


def _panel(axis: Any, label: str, ours: list[tuple[int, float]], theirs: list[tuple[int, float]]) -> None:
    if ours:
        axis.plot(*zip(*ours, strict=True), color="#9db4d0", linewidth=0.8)
        many = max(1, len(ours) // 20)
        smooth = [
            (step, sum(value for _, value in part) / len(part))
            for at, (step, _) in enumerate(ours)
            if (part := ours[max(0, at - many) : at + many + 1])
        ]
        axis.plot(*zip(*smooth, strict=True), color="#1f4e8c", linewidth=1.6, label="training")
    if theirs:
        axis.plot(
            *zip(*theirs, strict=True), color="#c8553d", linewidth=1.6, marker="o", markersize=3, label="held out"
        )
    axis.set_xlabel("step")
    axis.set_ylabel(label)
    axis.spines[["top", "right"]].set_visible(False)
    if ours or theirs:
        axis.legend(frameon=False, fontsize=8)
