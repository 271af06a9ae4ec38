"""The plugin's arithmetic against a dense reference, row by row. The engine itself is not started here."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine's extra is not installed")

from gateway.engines import grouped, plugin, punica  # noqa: E402

pytestmark = pytest.mark.slow

SLOTS, RANK, WIDTH = 16, 8, 64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


def wrapper(token_slots: list[int], sample_slots: list[int] | None = None) -> Any:
    """What our methods see of vLLM's wrapper: the slot of each token row and of each sampled row."""
    return SimpleNamespace(
        token_lora_indices=torch.tensor(token_slots), sampler_indices=torch.tensor(sample_slots or token_slots)
    )


def stacked(*shape: int) -> Any:
    return torch.randn(SLOTS, 1, *shape, dtype=torch.float32)


def dense(slots: list[int], x: Any, weights: Any, scale: float = 1.0) -> Any:
    """The reference: one row at a time, rows without an adapter get zeros."""
    rows = [
        scale * weights[slot, 0] @ row if slot >= 0 else torch.zeros(weights.shape[2])
        for slot, row in zip(slots, x, strict=True)
    ]
    return torch.stack(rows)


MIXES = {
    "base rows only": [-1] * 9,
    "one adapter": [15] * 9,
    "the last slot beside base rows": [15, -1, 15, -1, -1, 15],
    "every slot once, between base rows": [s for pair in zip(range(16), [-1] * 16, strict=True) for s in pair],
    "long runs": [3] * 40 + [-1] * 30 + [15] * 50,
    "shuffled": random.Random(5).choices(range(-1, SLOTS), k=200),
    "one base row": [-1],
}


@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES.keys())
@pytest.mark.parametrize("group_cost", [0, 1 << 40], ids=["by groups", "by gathering"])
def test_linear_layers_add_each_rows_own_adapter_and_leave_base_rows_exactly_alone(
    slots: list[int], group_cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "GROUP_COST_BYTES", group_cost)
    x, y = torch.randn(len(slots), WIDTH), torch.randn(len(slots), 48)
    a, b = (stacked(RANK, WIDTH), stacked(RANK, WIDTH)), (stacked(32, RANK), stacked(16, RANK))
    found = y.clone()
    punica.add_lora_linear(wrapper(slots), found, x, a, b, 0.5, (32, 16))
    parts = [dense(slots, dense(slots, x, a[i], 0.5), b[i]) for i in (0, 1)]
    torch.testing.assert_close(found, y + torch.cat(parts, dim=1), rtol=1e-4, atol=1e-4)
    base = [row for row, slot in enumerate(slots) if slot < 0]
    assert torch.equal(found[base], y[base])


@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES.keys())
def test_shrink_then_expand_equals_the_linear_layer(slots: list[int]) -> None:
    x, y = torch.randn(len(slots), WIDTH), torch.randn(len(slots), 48)
    a, b = (stacked(RANK, WIDTH), stacked(RANK, WIDTH)), (stacked(32, RANK), stacked(16, RANK))
    one, two = y.clone(), y.clone()
    punica.add_lora_linear(wrapper(slots), one, x, a, b, 1.0, (32, 16))
    buffers = torch.full((2, len(slots), RANK), float("nan"))
    punica.add_shrink(wrapper(slots), buffers, x, a, 1.0)
    punica.add_expand(wrapper(slots), two, buffers, b, (32, 16), add_input=True)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_expanding_without_adding_overwrites_and_writes_zero_for_base_rows() -> None:
    slots, b = [-1, 2, -1], (stacked(32, RANK),)
    x, y = torch.randn(1, 3, RANK), torch.randn(3, 48)
    found = y.clone()
    punica.add_expand(wrapper(slots), found, x, b, (32,), offset_start=16, add_inputs=False)
    torch.testing.assert_close(found[:, 16:], dense(slots, x[0], b[0]), rtol=1e-4, atol=1e-4)
    assert torch.equal(found[:, :16], y[:, :16])


def test_embeddings_expand_only_rows_with_an_adapter() -> None:
    slots, b = MIXES["shuffled"], stacked(WIDTH, RANK)
    x, y = torch.randn(len(slots), RANK), torch.randn(len(slots), WIDTH)
    found = y.clone()
    punica.add_lora_embedding(wrapper(slots), found, x, b)
    torch.testing.assert_close(found, y + dense(slots, x, b), rtol=1e-4, atol=1e-4)


def test_the_head_goes_by_sampled_rows_and_not_by_token_rows() -> None:
    samples, a, b = [15, -1, 3], stacked(RANK, WIDTH), stacked(100, RANK)
    x, y = torch.randn(3, WIDTH), torch.randn(3, 96)  # the head is narrower than the padded adapter
    found = y.clone()
    punica.add_lora_logits(wrapper([0] * 50, samples), found, x, a, b, 1.0)
    torch.testing.assert_close(found, y + dense(samples, dense(samples, x, a), b)[:, :96], rtol=1e-4, atol=1e-4)


def test_prompt_rows_that_the_mapping_does_not_describe_keep_the_base_head() -> None:
    y = torch.randn(7, 96)
    found = y.clone()
    punica.add_lora_logits(
        wrapper([15], [15]), found, torch.randn(7, WIDTH), stacked(RANK, WIDTH), stacked(96, RANK), 1
    )
    assert torch.equal(found, y)


def test_rows_past_the_mapping_are_padding() -> None:
    x, y = torch.randn(5, WIDTH), torch.zeros(5, 32)
    punica.add_lora_linear(wrapper([2, 2]), y, x, (stacked(RANK, WIDTH),), (stacked(32, RANK),), 1.0, (32,))
    assert y[:2].abs().sum() > 0
    assert not y[2:].any()


def test_bfloat16_is_as_close_as_vllms_own_path() -> None:
    slots = MIXES["shuffled"]
    x, y = torch.randn(len(slots), WIDTH).bfloat16(), torch.randn(len(slots), 32).bfloat16()
    a, b = stacked(RANK, WIDTH).bfloat16(), stacked(32, RANK).bfloat16()
    found = y.clone()
    punica.add_lora_linear(wrapper(slots), found, x, (a,), (b,), 1.0, (32,))
    inner = dense(slots, x.float(), a.float()).bfloat16()  # theirs: float32 inside, rounded to bfloat16 between the two
    expected = y.float() + dense(slots, inner.float(), b.float()).bfloat16().float()
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-1)


def test_a_plan_is_made_once_a_step_and_forgotten_with_the_step() -> None:
    seen = wrapper([1, -1])
    first = punica._plan(seen, "tokens", 2)
    assert punica._plan(seen, "tokens", 2) is first
    seen.token_lora_indices = torch.tensor([-1, 1])
    punica.forget_plans(seen)
    assert punica._plan(seen, "tokens", 2).groups == ((1, slice(1, 2)),)


class Changed:
    """A wrapper of some later vLLM: one method renamed, one with another parameter."""

    token_lora_indices = sampler_indices = None

    def update_metadata(
        self, mapping: Any, lora_index_to_id: Any, max_loras: Any, vocab_size: Any, **kwargs: Any
    ) -> None: ...

    def add_shrink(self, y: Any, x: Any, lora_a_stacked: Any, scale: Any, **kwargs: Any) -> None: ...

    def add_expand(self, y: Any, x: Any, lora_b_stacked: Any, slices: Any) -> None: ...


def test_a_changed_wrapper_is_described_and_not_touched() -> None:
    found = plugin.differences(Changed)
    assert "add_lora_linear is gone" in found
    assert any(line.startswith("add_expand takes (self, y, x, lora_b_stacked, slices), expected") for line in found)
    assert not any("add_shrink" in line for line in found)


@pytest.mark.vllm
def test_the_installed_vllm_has_the_wrapper_that_the_plugin_was_written_for() -> None:
    module = pytest.importorskip("vllm.lora.punica_wrapper.punica_cpu", reason="vLLM is not installed")
    assert plugin.differences(module.PunicaWrapperCPU) == []
    real = type("Wrapper", (module.PunicaWrapperCPU,), {})
    plugin.install(real)
    plugin.install(real)
    made: Any = real(64, 16, "cpu")
    mapping = SimpleNamespace(index_mapping=(5, 0, 0), prompt_mapping=(5, 0, 0), is_prefill=True)
    made.update_metadata(mapping, [5], 2, 100)
    x, y = torch.randn(3, WIDTH), torch.zeros(3, 32)
    made.add_lora_linear(y, x, (stacked(RANK, WIDTH),), (stacked(32, RANK),), 1.0, (32,))
    assert y[0].any()
    assert not y[1:].any()
    mapping.index_mapping = (0, 5, 0)
    made.update_metadata(mapping, [5], 2, 100)
    y.zero_()
    made.add_lora_linear(y, x, (stacked(RANK, WIDTH),), (stacked(32, RANK),), 1.0, (32,))
    assert not y[0].any()
    assert y[1].any()
