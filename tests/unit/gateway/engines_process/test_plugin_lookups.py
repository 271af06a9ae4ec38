from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's manager of adapters in a worker, with our cure on it while the test runs."""
    module = pytest.importorskip("vllm.lora.worker_manager")
    from gateway.engines import plugin

    kind = module.LRUCacheWorkerLoRAManager
    monkeypatch.setattr(kind, "add_adapter", kind.add_adapter)
    assert plugin._cure_lookups() == plugin._cure_lookups()  # vLLM registers plugins more than once
    return kind


def manager_of(worker: Any, loaded: int) -> Any:
    """A worker's manager without a model, which notes what it is asked for."""
    from vllm.lora.model_manager import AdapterLRUCache

    cache = AdapterLRUCache(loaded + 1, lambda number: None)
    for number in range(loaded):
        cache[number] = SimpleNamespace(id=number)
    made = worker.__new__(worker)
    made.active, made.listed = [], 0

    def listed() -> set[int]:
        made.listed += 1
        return set(cache)

    made._adapter_manager = SimpleNamespace(
        _registered_adapters=cache, get_adapter=cache.get, activate_adapter=made.active.append
    )
    made.list_adapters = listed
    return made


def asked(number: int, *, again: bool = False) -> Any:
    return SimpleNamespace(lora_int_id=number, load_inplace=again)


def test_an_adapter_that_is_loaded_is_used_without_a_list_of_all_and_is_the_youngest_then(worker: Any) -> None:
    made = manager_of(worker, loaded=3)
    assert made.add_adapter(asked(0))
    assert (made.active, made.listed) == ([0], 0)
    assert list(made._adapter_manager._registered_adapters.order) == [1, 2, 0]


@pytest.mark.parametrize("request_", [asked(7), asked(0, again=True)], ids=["unknown", "to be read again"])
def test_what_must_be_read_is_left_to_vllm(worker: Any, request_: Any) -> None:
    made = manager_of(worker, loaded=3)
    made._load_adapter = lambda request: pytest.fail("read")
    with pytest.raises(pytest.fail.Exception, match="read"):
        made.add_adapter(request_)


def test_vllm_still_copies_the_list_or_the_cure_can_go() -> None:
    source = pytest.importorskip("inspect").getsource(
        pytest.importorskip("vllm.lora.worker_manager").LRUCacheWorkerLoRAManager
    )
    assert "not in self.list_adapters()" in source


def test_a_method_that_vllm_has_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = pytest.importorskip("vllm.lora.worker_manager").LRUCacheWorkerLoRAManager
    from gateway.engines import plugin

    def changed(self: object, lora_request: object, more: object) -> None: ...

    monkeypatch.setattr(kind, "add_adapter", changed)
    with pytest.raises(TypeError, match="expected"):
        plugin._cure_lookups()
    assert kind.add_adapter is changed
