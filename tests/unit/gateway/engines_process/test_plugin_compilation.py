from __future__ import annotations

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def test_ranks_of_logprobs_are_counted_as_vllm_counts_them_and_nothing_is_compiled() -> None:
    torch = pytest.importorskip("torch")
    sampler = pytest.importorskip("vllm.v1.sample.sampler")
    from gateway.engines import plugin

    theirs = sampler.batched_count_greater_than
    assert hasattr(theirs, "_torchdynamo_orig_callable"), "vLLM compiles it no more: the cure can go"
    try:
        assert plugin._cure_compilation() == plugin._cure_compilation()  # vLLM registers plugins more than once
        ours = sampler.batched_count_greater_than
        assert not hasattr(ours, "_torchdynamo_orig_callable")
        numbers = torch.tensor([[0.1, 0.5, 0.5, -2.0], [3.0, 1.0, 2.0, 0.0]])
        assert ours(numbers, numbers.gather(1, torch.tensor([[1], [3]]))).tolist() == [2, 4]
    finally:
        sampler.batched_count_greater_than = theirs


def test_a_function_that_vllm_has_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = pytest.importorskip("vllm.v1.sample.sampler")
    from gateway.engines import plugin

    def changed(x: object, values: object, more: object) -> None: ...

    monkeypatch.setattr(sampler, "batched_count_greater_than", changed)
    with pytest.raises(TypeError, match="expected"):
        plugin._cure_compilation()
    assert sampler.batched_count_greater_than is changed
