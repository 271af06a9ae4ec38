"""The speed measurements measure what they say; with an NVIDIA GPU also QLoRA at a billion parameters' shape."""

from __future__ import annotations

from typing import Literal

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

pytestmark = [pytest.mark.claim, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_both_sides_put_the_same_tokens_through(method: str) -> None:
    from training.speed.against import against

    found = against("sft" if method == "sft" else "dpo", rounds=1, steps=2)
    tokens = {each.tokens for runs in found.values() for each in runs}
    assert len(tokens) == 1
    assert min(tokens) > 500
    assert all(each.seconds > 0 for runs in found.values() for each in runs)


@pytest.mark.parametrize("rows", ["questions", "conversations"])
def test_packing_puts_about_as_many_tokens_through_as_filling(rows: Literal["questions", "conversations"]) -> None:
    from training.speed.against import packing

    found = packing(rows, rounds=1, count=64)
    filled, packed = found["filled"][0].tokens, found["packed"][0].tokens
    assert 0.75 * filled < packed < 1.25 * filled


def test_qlora_is_measured_on_random_weights() -> None:
    from training.speed.qlora import SMALL, measure

    found = measure(SMALL, rounds=1, steps=2, batch=2)
    assert [each.tokens for each in found.ours] == [each.tokens for each in found.plain] == [2 * 2 * 512]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_qlora_is_as_fast_as_plain_trl_and_takes_no_more_memory() -> None:
    from training.speed.qlora import AGAINST_MIN, BILLION, MEMORY_MAX, measure

    found = measure(BILLION, rounds=2, steps=20, batch=8)
    assert found.parameters > 1e9
    assert found.ratio.mean >= AGAINST_MIN
    assert found.ours_bytes <= MEMORY_MAX * found.plain_bytes
