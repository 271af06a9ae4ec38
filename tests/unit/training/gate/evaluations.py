"""Evaluations made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from training.evaluation.values import Better, Cut, Difference, Evaluation, Measured, Role, Slice, Subject


def measured(
    name: str = "held.exact",
    value: float = 0.9,
    *,
    n: int = 400,
    role: Role = "held",
    better: Better = "higher",
    base: float | None = None,
    live: float | None = None,
    spread: float = 0.01,
    unit: str = "share",
    cuts: tuple[Cut, ...] = (),
    versus_n: int | None = None,
) -> Measured:
    """A number of the candidate; `base` and `live` are how far it is from those, with half an interval of `spread`."""
    others: tuple[tuple[Subject, float | None], ...] = (("base", base), ("live", live))
    versus = tuple(
        Difference(versus=other, n=versus_n or n, value=apart, low=apart - spread, high=apart + spread)
        for other, apart in others
        if apart is not None
    )
    return Measured(
        name=name,
        subject="candidate",
        n=n,
        value=value,
        low=value - spread,
        high=value + spread,
        role=role,
        better=better,
        versus=versus,
        cuts=cuts,
        unit=unit,
    )


def evaluation(*found: Measured, **more: Any) -> Evaluation:
    bare = Evaluation(
        digest="sha256:e", models={"candidate": "c", "base": "b"}, suites=(), measured=found or (measured(base=0.0),)
    )
    return replace(bare, **more)


def cut(**values: float) -> Cut:
    """By group, 50 rows each."""
    slices = tuple(Slice(name=name, n=50, value=value, low=value, high=value) for name, value in values.items())
    return Cut(by="group", slices=slices, worst="", gap=max(values.values()) - min(values.values()))
