"""The curves as pictures, for people. matplotlib is imported here only; it comes with the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
#: Seen on white and on black alike, since nobody knows what a page is like.
_OURS, _THEIRS, _INK = "#2f81f7", "#e0623d", "#6e7781"
#: No clock and no random ids in it: the same curves give the same bytes.
_SAME: Final = {"svg.hashsalt": "graftline"}
#: On any page: nothing behind the lines, words as words in whatever letters the reader has, every step a point.
_ANY_PAGE: Final = {
    **_SAME, "svg.fonttype": "none", "path.simplify": False, "font.size": 9,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
}  # fmt: skip

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What one panel shows: (step, number) of the training, and of the held-out rows."""

    label: str
    ours: Points
    theirs: Points = ()
    title: str = ""


def draw(curves: Curves, said: CurveVerdict, title: str, folder: Path) -> tuple[Path, ...]:
    """`curves.svg` and `curves.png` in the folder. Raises NoPlot."""
    rc_context, figure_of = _matplotlib()
    panels = [
        Panel(label=label, ours=curves.series(ours), theirs=curves.held_series(theirs))
        for label, ours, theirs in _PANELS
    ]
    panels = [each for each in panels if each.ours or each.theirs][:_PANELS_MAX]
    figure = figure_of(figsize=(4.2 * max(1, len(panels)), 3.4), layout="constrained")
    figure.suptitle(f"{title}: {said.word.replace('_', '-')}", fontsize=10)
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=False):
        _panel(axis, panel)
    with rc_context(_SAME):
        return tuple(_kept(figure, folder / name) for name in FILES)


def picture(supervised: Panel, rewarded: Panel, distance: Panel, out: Path) -> Path:
    """One picture of two runs, for a page that may be light or dark: how a loss fell; how a reward rose, and beneath it
    how far from its reference that led. Its lines are groups, `loss-training`, `loss-held`, `reward-training` and
    `distance-training`. Raises NoPlot.
    """
    rc_context, figure_of = _matplotlib()
    with rc_context(_ANY_PAGE):
        figure = figure_of(figsize=(8.4, 3.3), layout="constrained")
        figure.get_layout_engine().set(wspace=0.06)
        axes = figure.subplot_mosaic([["loss", "reward"], ["loss", "distance"]], height_ratios=(2, 1))
        for name, panel in (("loss", supervised), ("reward", rewarded), ("distance", distance)):
            _panel(axes[name], panel, name)
            axes[name].grid(color=_INK, alpha=0.2, linewidth=0.6)
        axes["distance"].sharex(axes["reward"])
        axes["reward"].tick_params(labelbottom=False)
        axes["reward"].set_xlabel("")
        axes["distance"].set_ylim(bottom=0)
        figure.align_ylabels([axes["reward"], axes["distance"]])
        return _kept(figure, out)


def _matplotlib() -> tuple[Any, Any]:
    """(rc_context, Figure). Raises NoPlot."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPlot(f"Pictures need the extra 'plot' ({error}): pip install 'graftline[plot]'.") from error
    return rc_context, Figure


def _panel(axis: Any, panel: Panel, name: str = "") -> None:
    """Draw it; `name` begins the names of its lines."""
    ours, theirs = panel.ours, panel.theirs
    if ours:
        each = axis.plot(*zip(*ours, strict=True), color=_OURS, alpha=0.45, linewidth=0.8)
        axis.plot(*zip(*_smooth(ours), strict=True), color=_OURS, linewidth=1.6, label="training")
        if name:
            each[0].set_gid(f"{name}-training")
    if theirs:
        held = axis.plot(
            *zip(*theirs, strict=True), color=_THEIRS, linewidth=1.6, marker="o", markersize=3, label="held out"
        )
        if name:
            held[0].set_gid(f"{name}-held")
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel("step")
    axis.set_ylabel(panel.label)
    axis.spines[["top", "right"]].set_visible(False)
    if theirs or (ours and not name):
        axis.legend(frameon=False, fontsize=8)


def _smooth(points: Points) -> list[tuple[int, float]]:
    """Each step's mean with its neighbours: of twenty parts, one to each side."""
    many = max(1, len(points) // 20)
    return [
        (step, sum(value for _, value in part) / len(part))
        for at, (step, _) in enumerate(points)
        if (part := points[max(0, at - many) : at + many + 1])
    ]


def _kept(figure: Any, path: Path) -> Path:
    """Whole or not at all."""
    building = path.with_name(f".{path.name}")
    kind = path.suffix.removeprefix(".")
    about = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(building, format=kind, dpi=120, metadata=about)
    building.replace(path)
    return path
