"""The methods that our plugin puts on vLLM's CPU LoRA wrapper, with the parameters that vLLM 0.32 calls them with.

Read in `vllm/lora/punica_wrapper/punica_cpu.py` and `vllm/lora/layers/`: linear layers call `add_lora_linear`, fully
sharded ones `add_shrink` and `add_expand`, embeddings `add_lora_embedding`, the head `add_lora_logits`. Classification
heads (`apply_lora_full_linear`) choose rows by index >= 0 themselves and are left alone.
"""

from __future__ import annotations

from typing import Any

import torch

from gateway.engines.grouped import Plan, multiply, plan

_PLANS = "_graftline_plans"


def forget_plans(self: Any) -> None:
    """After vLLM has described the next step's rows, the plans of the step before are stale."""
    setattr(self, _PLANS, {})


def add_shrink(self: Any, y: Any, x: torch.Tensor, lora_a_stacked: Any, scale: float, **kwargs: Any) -> None:
    """`y[slice] = scale * A x` for rows with an adapter, 0 for the others."""
    x = x.view(-1, x.shape[-1])
    step = _plan(self, "tokens", x.shape[0])
    for part, weights in zip(y, lora_a_stacked, strict=False):
        flat = part.view(-1, part.shape[-1])
        flat.zero_()
        multiply(flat, x, weights, step, scale=scale, start=0, width=flat.shape[1])


def add_expand(
    self: Any,
    y: torch.Tensor,
    x: Any,
    lora_b_stacked: Any,
    output_slices: tuple[int, ...],
    offset_start: int = 0,
    add_inputs: bool = True,
    **kwargs: Any,
) -> None:
    """`y[:, its part] += B x[slice]`; without `add_inputs` the part is overwritten, by 0 where there is no adapter."""
    flat, start = y.view(-1, y.shape[-1]), offset_start
    for part, weights, width in zip(x, lora_b_stacked, output_slices, strict=False):
        if not add_inputs:
            flat[:, start : start + width] = 0
        step = _plan(self, "tokens", part.shape[0])
        multiply(flat, part, weights, step, scale=1.0, start=start, width=width)
        start += width


def add_lora_linear(
    self: Any,
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a_stacked: Any,
    lora_b_stacked: Any,
    scale: float,
    output_slices: tuple[int, ...],
    *,
    buffer: Any = None,
    **kwargs: Any,
) -> None:
    """`y += scale * B A x`, slice by slice. `buffer` is not needed: the inner product is small."""
    flat, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    step, start = _plan(self, "tokens", x.shape[0]), 0
    if not step.groups:
        return
    for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
        _low_rank(flat, x, a, b, step, scale=scale, start=start, width=width)
        start += width


def add_lora_embedding(
    self: Any, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **kwargs: Any
) -> None:
    """`y += B x`, where x is the row of the adapter's A that the token picked."""
    if not add_inputs:
        y.zero_()
    step = _plan(self, "tokens", x.shape[0])
    multiply(y, x, lora_b_stacked, step, scale=1.0, start=0, width=y.shape[1])


def add_lora_logits(
    self: Any,
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a_stacked: torch.Tensor,
    lora_b_stacked: torch.Tensor,
    scale: float,
    *,
    buffer: Any = None,
    **kwargs: Any,
) -> None:
    """`y += scale * B A x` on the head, by the slots of the *sampled* rows.

    For prompt logprobs vLLM calls this with one request's prompt rows, which the mapping does not describe; its own
    path raises on the shapes, inside the forward step. Rows outside the mapping keep the base's head here.
    """
    flat, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    if x.shape[0] != self.sampler_indices.shape[0]:
        return
    step = _plan(self, "samples", x.shape[0])
    if step.groups:
        _low_rank(flat, x, lora_a_stacked, lora_b_stacked, step, scale=scale, start=0, width=flat.shape[1])


def _low_rank(
    out: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    step: Plan,
    *,
    scale: float,
    start: int,
    width: int,
) -> None:
    inner = torch.zeros((x.shape[0], a.shape[-2]), dtype=out.dtype)
    multiply(inner, x, a, step, scale=scale, start=0, width=inner.shape[1])
    multiply(out, inner, b, step, scale=1.0, start=start, width=width)


def _plan(self: Any, kind: str, count: int) -> Plan:
    """This step's plan, made once. Rows past the mapping (padding) have no adapter."""
    plans: dict[str, Plan] = self.__dict__.setdefault(_PLANS, {})
    made = plans.get(kind)
    if made is None or made.count != count:
        indices = self.token_lora_indices if kind == "tokens" else self.sampler_indices
        known = indices[:count]
        if known.shape[0] < count:
            known = torch.cat([known, known.new_full((count - known.shape[0],), -1)])
        made = plans[kind] = plan(known)
    return made
