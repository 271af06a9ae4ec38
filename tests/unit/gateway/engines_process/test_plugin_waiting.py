from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture
def condition(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What vLLM's readers wait on, with our cure on it while the test runs."""
    kind = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast").SpinCondition
    from gateway.engines import plugin

    monkeypatch.setattr(kind, "wait", kind.wait)
    assert plugin._cure_spinning() == plugin._cure_spinning()  # vLLM registers plugins more than once
    return kind


@pytest.fixture
def reader(condition: Any) -> Iterator[Any]:
    import zmq

    context, address = zmq.Context(), f"inproc://{time.monotonic_ns()}"
    writer = condition(is_reader=False, context=context, notify_address=address)
    made = condition(is_reader=True, context=context, notify_address=address)
    made.writer = writer
    yield made
    context.destroy(linger=0)


def test_a_reader_sleeps_soon_and_looks_again_though_nobody_woke_it(reader: Any) -> None:
    before = time.thread_time()
    reader.record_read()
    began, looks = time.monotonic(), 0
    while time.monotonic() - began < 0.5:
        reader.wait(timeout_ms=5000)
        looks += time.monotonic() - reader.last_read > 0.01
    assert 20 < looks <= 250  # about every 2 ms, fewer on a busy machine; vLLM's would have been many thousands
    assert time.thread_time() - before < 0.25  # vLLM spins for all of it


def test_a_reader_that_rests_is_woken(reader: Any) -> None:
    reader.last_read = time.monotonic() - 10
    waking = threading.Timer(0.1, reader.writer.notify)  # by then the writer knows of its reader
    waking.start()
    began = time.monotonic()
    reader.wait(timeout_ms=5000)
    assert 0.05 < time.monotonic() - began < 2.5
    waking.join()


def test_vllm_still_spins_for_a_second_or_the_cure_can_go() -> None:
    inspect = pytest.importorskip("inspect")
    kind = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast").SpinCondition
    from gateway.engines import plugin

    assert inspect.signature(kind.__init__).parameters["busy_loop_s"].default == plugin.RESTLESS_S


def test_a_method_that_vllm_has_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast").SpinCondition
    from gateway.engines import plugin

    def changed(self: object, timeout_ms: object, more: object) -> None: ...

    monkeypatch.setattr(kind, "wait", changed)
    with pytest.raises(TypeError, match="expected"):
        plugin._cure_spinning()

    def elsewhere(self: object, timeout_ms: object = None) -> None: ...

    monkeypatch.setattr(kind, "wait", elsewhere)
    with pytest.raises(TypeError, match="does not look at"):
        plugin._cure_spinning()
    assert kind.wait is elsewhere
