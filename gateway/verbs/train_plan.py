"""What `graftline train --plan` says of a rehearsal: memory by part, tokens, time and cost."""

from __future__ import annotations

from collections.abc import Iterator

from training.launchers.section import Launch
from training.recipes.progress import Planned


def lines(plan: Planned, *, cost_per_hour: float | None, launch: Launch) -> Iterator[str]:
    """One line a thing, memory from the largest part down."""
    yield f"memory at the peak: {_size(sum(plan.memory.values()))}, measured over {plan.probed_steps} steps here"
    for part, size in sorted(plan.memory.items(), key=lambda each: -each[1]):
        yield f"  {_size(size):>9}  {part}"
    yield f"  (foreseen without them: {_size(sum(plan.estimated.values()))} without Python and libraries)"
    yield f"tokens: {plan.tokens:,} in {plan.steps} steps, {plan.tokens_per_s:,.0f} a second"
    yield f"time: {_time(plan.seconds)}, {plan.step_s:.3g} s a step"
    if cost_per_hour is None:
        yield "cost: unknown; set cost_per_hour to the price of an hour of this machine"
    else:
        yield f"cost: {plan.seconds / 3600 * cost_per_hour:.4g} at {cost_per_hour:g} an hour"
    if launch.processes > 1:
        part = ", each with a part of the weights" if launch.sharding == "fsdp" else ", each with all of the weights"
        yield f"All of this is of one process; the run will have {launch.processes}{part}."


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
