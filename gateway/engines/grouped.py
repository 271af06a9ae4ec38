"""LoRA products over the rows of one engine step, grouped by adapter slot. Runs inside the engine, needs torch.

vLLM's CPU path gathers a copy of the adapter's weights for every row (`weights[indices]`), and because an index of -1
reads the *last* slot, rows without an adapter get that slot's adapter. Here a row without an adapter is in no group, so
its output is never written. Groups of rows cost one plain product each, without copies; where a step has many small
groups on a narrow model, the launches would cost more than the copies, and the rows are gathered instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: What one more group costs, told in bytes of gathered weights: a product's launch against the copying of rows.
#: Measured on 2 Zen 5 cores in bfloat16 over widths 192 to 4096 and 1 to 16 groups; the choice only affects speed.
GROUP_COST_BYTES = 128 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which rows belong to which slot. `rows` and `slots` list every row that has an adapter, in row order."""

    count: int
    groups: tuple[tuple[int, slice | torch.Tensor], ...]
    rows: slice | torch.Tensor
    slots: torch.Tensor


def plan(indices: torch.Tensor) -> Plan:
    """Group rows by their slot; `indices` holds one slot a row, negative for a row without an adapter."""
    slots: list[int] = indices.tolist()
    by_slot: dict[int, list[int]] = {}
    for row, slot in enumerate(slots):
        if slot >= 0:
            by_slot.setdefault(slot, []).append(row)
    adapted = [row for row, slot in enumerate(slots) if slot >= 0]
    return Plan(
        count=len(slots),
        groups=tuple((slot, _select(rows)) for slot, rows in by_slot.items()),
        rows=_select(adapted),
        slots=torch.tensor([slots[row] for row in adapted], dtype=torch.long),
    )


def multiply(
    out: torch.Tensor, x: torch.Tensor, weights: torch.Tensor, step: Plan, *, scale: float, start: int, width: int
) -> None:
    """`out[row, start:start+width] += scale * weights[slot of row] @ x[row]`, for rows that have an adapter.

    `weights` is (slots, out, in) or (slots, 1, out, in). The layer and the adapter may pad their outputs differently:
    what does not fit is left out. Products accumulate in float32 and are rounded once, as in vLLM's own path.
    """
    stacked = weights.squeeze(1) if weights.dim() == 4 else weights
    width = min(width, stacked.shape[1], out.shape[1] - start)
    target = out[:, start : start + width]
    precision = out.dtype if x.dtype == torch.float32 else x.dtype
    row_bytes = stacked.shape[1] * stacked.shape[2] * stacked.element_size()
    if len(step.slots) * row_bytes <= len(step.groups) * GROUP_COST_BYTES:
        chosen, inputs = stacked[step.slots].to(precision), x[step.rows].to(precision)
        _add(target, step.rows, torch.bmm(chosen, inputs.unsqueeze(2)).squeeze(2)[:, :width], scale)
        return
    for slot, rows in step.groups:
        _add(target, rows, torch.mm(x[rows].to(precision), stacked[slot].to(precision).t())[:, :width], scale)


def _add(target: torch.Tensor, rows: slice | torch.Tensor, product: torch.Tensor, scale: float) -> None:
    if scale != 1.0:
        product = product * scale
    if isinstance(rows, slice):
        target[rows] += product
    else:
        target.index_add_(0, rows, product.to(target.dtype))


def _select(rows: list[int]) -> slice | torch.Tensor:
    """A run of rows as a slice, which is a view; otherwise their numbers."""
    if not rows:
        return slice(0, 0)
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, dtype=torch.long)
