"""The intervals of an experiment over time, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.errors import MissingExtra
from gateway.errors import BadField

#: More looks than a picture has columns are thinned out; the last is always drawn.
POINTS_MAX = 800


@dataclass(slots=True)
class Line:
    """One metric of one arm: a point a look, oldest first. Unknown bounds are NaN."""

    metric: str
    arm: str
    role: str
    at: list[datetime] = field(default_factory=list)
    estimate: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)


def lines(rulings: Sequence[Mapping[str, Any]]) -> list[Line]:
    """What can be drawn of rulings, the newest first: the primary metric and the guardrails."""
    looks = [ruling for ruling in reversed(rulings) if ruling["numbers"].get("estimates")]
    every = max(1, math.ceil(len(looks) / POINTS_MAX))
    found: dict[tuple[str, str], Line] = {}
    for look in [*looks[:-1][::every], *looks[-1:]]:
        for each in look["numbers"]["estimates"]:
            if each["role"] == "diagnostic":
                continue
            key = (each["metric"], each["arm"])
            line = found.setdefault(key, Line(each["metric"], each["arm"], each["role"]))
            line.at.append(datetime.fromtimestamp(look["at"], UTC))
            for side in ("estimate", "lower", "upper"):
                value = each[side]
                getattr(line, side).append(math.nan if value is None else float(value))
    return sorted(found.values(), key=lambda line: (line.role != "primary", line.metric, line.arm))


def draw(experiment: Mapping[str, Any], rulings: Sequence[Mapping[str, Any]], to: Path) -> None:
    """Write the picture. Raises MissingExtra without matplotlib, BadField where there is nothing to draw yet."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("A plot needs matplotlib; install graftline[plot].") from error
    drawn = lines(rulings)
    if not drawn:
        raise BadField("Nothing can be drawn yet: no look has given an estimate.", param="plot")
    margins = {metric["name"]: metric["margin"] for metric in experiment["metrics"]}
    figure = Figure(figsize=(9, 2.6 * len(drawn)), layout="constrained")
    for place, line in zip(figure.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True):
        place.fill_between(line.at, line.lower, line.upper, alpha=0.25, step="post")
        place.step(line.at, line.estimate, where="post")
        place.axhline(0.0, color="black", linewidth=0.8)
        if line.role == "guardrail":
            place.axhline(-margins[line.metric], color="tab:red", linewidth=0.8, linestyle="--")
        place.set_title(f"{line.metric} ({line.role}): {line.arm} minus control, above 0 is better", fontsize=9)
        place.tick_params(labelsize=8)
    figure.suptitle(f"{experiment['id']} on {experiment['name']}@{experiment['alias']}: {experiment['stage']}")
    try:
        figure.savefig(to, format="png", dpi=110)
    except OSError as error:
        raise BadField(f"{to} cannot be written: {error.strerror or error}.", param="plot") from error
