"""The plugin's tripwire, on stand-ins with vLLM's signatures. `make engine-check` shows it on vLLM itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.engines import nan, tripwire
from gateway.engines.errors import EnginePoisoned

FAILED = "failed"


@dataclass
class Output:
    request_id: str
    new_token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: str | None = None
    events: Any = None
    num_nans_in_logits: int = 0


@dataclass
class Outputs:
    outputs: list[Output] = field(default_factory=list)


class Request:
    client_index = 0

    def __init__(self, request_id: str, adapter: str = "") -> None:
        self.request_id = request_id
        self.lora_request = SimpleNamespace(lora_name=adapter) if adapter else None
        self.status = "running"

    def get_finished_reason(self) -> str:
        return self.status

    def take_events(self) -> None:
        return None


class Scheduler:
    """vLLM's, as far as the tripwire touches it: one token a step for whoever still runs."""

    def __init__(self, *requests: Request) -> None:
        self.requests = {request.request_id: request for request in requests}

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, Outputs]:
        outputs = [Output(request_id=r, new_token_ids=[7]) for r in self.requests]
        return {0: Outputs(outputs)} if outputs else {}

    def finish_requests(self, request_ids: list[str], finished_status: str) -> list[Request]:
        ended = [self.requests.pop(r) for r in request_ids if r in self.requests]
        for request in ended:
            request.status = finished_status
        return ended


class Queue:
    def __init__(self) -> None:
        self.got: list[Any] = []

    def put(self, output: Any) -> None:
        self.got.append(output)


class Processor:
    def __init__(self, *request_ids: str) -> None:
        self.request_states = {r: SimpleNamespace(queue=Queue()) for r in request_ids}

    def process_outputs(
        self, engine_core_outputs: Any, engine_core_timestamp: Any = None, iteration_stats: Any = None
    ) -> str:
        for each in engine_core_outputs:
            self.request_states.pop(each.request_id, None)
        return "processed"


def stepped(scheduler: Any, counts: Mapping[str, int] | None) -> dict[str, Output]:
    class Ours(type(scheduler)):  # type: ignore[misc]
        pass

    if not hasattr(scheduler, "wrapped"):
        tripwire.wrap_scheduler(Ours, Output, Outputs, FAILED)
        scheduler.__class__, scheduler.wrapped = Ours, True
    found = scheduler.update_from_output(None, SimpleNamespace(num_nans_in_logits=counts))
    return {each.request_id: each for outputs in found.values() for each in outputs.outputs}


@pytest.mark.parametrize("counts", [None, {}, {"a": 0, "b": 0}])
def test_a_step_without_nan_is_as_it_was(counts: Mapping[str, int] | None) -> None:
    told = stepped(Scheduler(Request("a", "x@1"), Request("b")), counts)
    assert [(o.new_token_ids, o.stop_reason) for o in told.values()] == [([7], None), ([7], None)]


def test_a_request_with_nan_ends_without_a_token_and_the_others_go_on() -> None:
    scheduler = Scheduler(Request("a", "bad@1"), Request("b"))
    told = stepped(scheduler, {"a": 1024, "b": 0})
    assert (told["a"].new_token_ids, told["a"].finish_reason, told["a"].num_nans_in_logits) == ([], FAILED, 1024)
    assert (told["b"].new_token_ids, told["b"].finish_reason) == ([7], None)
    error = nan.read("e", told["a"].stop_reason or "")
    assert error.first == ("bad@1",)
    assert error.at == error.first_at > 1_700_000_000


def test_who_was_the_first_is_told_to_all_who_come_after() -> None:
    scheduler = Scheduler(Request("a", "bad@1"), Request("b"), Request("c", "good@1"))
    first = nan.read("e", stepped(scheduler, {"a": 3})["a"].stop_reason or "")
    later = nan.read("e", stepped(scheduler, {"b": 3, "c": 3})["c"].stop_reason or "")
    assert later.first == ("bad@1",)
    assert later.first_at == first.at < later.at


def test_the_first_may_be_the_base_or_somebody_who_left() -> None:
    scheduler = Scheduler(Request("b"))
    told = stepped(scheduler, {"b": 1, "gone": 1})
    assert set(told) == {"b"}
    assert nan.read("e", told["b"].stop_reason or "").first == (tripwire.BASE, "")


def test_a_step_that_leaves_nothing_still_tells_the_client() -> None:
    told = stepped(Scheduler(Request("a", "bad@1")), {"a": 1})
    assert told["a"].finish_reason == FAILED


def test_what_waits_for_the_answer_gets_the_error_after_the_engines_own_end() -> None:
    class Ours(Processor):
        pass

    tripwire.wrap_processor(Ours, ValueError)
    ours = Ours("a", "b")
    queues = {name: state.queue for name, state in ours.request_states.items()}
    message = nan.write(at=2.0, first_at=1.0, first=["bad@1"])
    ended = Output("a", [], FAILED, message, num_nans_in_logits=1)
    said_so_itself = Output("b", [1], "stop", message)  # a stop string may be anything
    assert ours.process_outputs([ended, said_so_itself, Output("gone", [], FAILED, message, None, 1)]) == "processed"
    assert [str(error) for error in queues["a"].got] == [message]
    assert queues["b"].got == []


def test_an_engine_that_differs_is_left_alone_and_the_difference_is_named() -> None:
    class Changed(Scheduler):
        def update_from_output(self, output: Any) -> dict[int, Outputs]:  # type: ignore[override]
            return {}

    class Child(Changed):
        def update_from_output(self, output: Any) -> dict[int, Outputs]:  # type: ignore[override]
            return {}

    def weighed(self: Any, *, engine_core_outputs: Any) -> None: ...

    classes: dict[str, Any] = {owner: object for owner, _ in tripwire.EXPECTED}
    classes |= {"Scheduler": Changed, "OutputProcessor": SimpleNamespace(process_outputs=weighed)}
    found = tripwire.differences(classes, Request)
    assert "Scheduler.update_from_output takes (self, output)" in found[0]
    assert any("Child has an update_from_output of its own" in line for line in found)
    assert "EngineCoreOutput has no new_token_ids" in found


class Serving:
    """vLLM's Responses API, which cannot word an error within a stream."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def responses_stream_generator(self, request: str) -> AsyncIterator[Any]:
        yield request
        yield self._convert_generation_error_to_streaming_response(self._error)

    def _convert_generation_error_to_streaming_response(self, e: Exception) -> str:
        raise TypeError(f"their schema refuses {e}")


async def test_a_stream_of_the_responses_api_ends_with_an_event() -> None:
    class Ours(Serving):
        pass

    tripwire.wrap_responses(Ours, KeyError)
    first, last = [event async for event in Ours(KeyError("graftline_nan {}")).responses_stream_generator("begun")]
    assert (first, last.type) == ("begun", "error")
    assert last.model_dump_json(indent=None, by_alias=True).startswith('{"error": {"message": "\'graftline_nan {}')
    with pytest.raises(TypeError, match="refuses theirs"):
        [event async for event in Ours(OSError("theirs")).responses_stream_generator("begun")]


class Full:
    """The kind of cache that vLLM's CPU worker zeroes."""


class Zeroing(Scheduler):
    """A scheduler with blocks: `held` by request, `shared` ones are somebody else's as well."""

    def __init__(self, held: Mapping[str, list[int]], *, shared: tuple[int, ...] = (), full: bool = True) -> None:
        super().__init__(*(Request(name, "bad@1") for name in held))
        spec = Full() if full else object()
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)])
        blocks = [SimpleNamespace(ref_cnt=int(at in shared), is_null=at == 0) for at in range(10)]
        self.evicted: set[int] = set()
        pool = SimpleNamespace(blocks=blocks, evict_blocks=self.evicted.update)
        self.kv_cache_manager = SimpleNamespace(block_pool=pool, get_block_ids=lambda name: (held[name],))

    def _get_new_block_ids_to_zero(self) -> list[int] | None:
        return None


def zeroing(scheduler: Zeroing) -> Zeroing:
    class Ours(Zeroing):
        pass

    tripwire.wrap_scheduler(Ours, Output, Outputs, FAILED)
    tripwire.wrap_zeroing(Ours, Full)
    scheduler.__class__ = Ours
    return scheduler


def struck(scheduler: Zeroing, counts: Mapping[str, int]) -> list[EnginePoisoned]:
    found = scheduler.update_from_output(None, SimpleNamespace(num_nans_in_logits=counts))
    told = [each.stop_reason for outputs in found.values() for each in outputs.outputs if each.stop_reason]
    return [nan.read("e", message) for message in told]


def test_what_ended_requests_leave_behind_is_zeroed_once_and_is_no_prefix_any_more() -> None:
    scheduler = zeroing(Zeroing({"a": [3, 4], "b": [5]}))
    assert [error.contained for error in struck(scheduler, {"a": 1, "b": 0})] == [True]
    assert [scheduler._get_new_block_ids_to_zero() for _ in range(2)] == [[3, 4], None]
    assert scheduler.evicted == {3, 4}


def test_blocks_that_others_still_use_and_the_null_block_are_left_alone() -> None:
    scheduler = zeroing(Zeroing({"a": [0, 3, 4]}, shared=(4,)))
    struck(scheduler, {"a": 1})
    assert scheduler._get_new_block_ids_to_zero() == [3]


def test_what_somebody_who_left_has_left_behind_is_not_contained_from_then_on() -> None:
    scheduler = zeroing(Zeroing({"a": [3], "b": [4]}))
    assert [error.contained for error in struck(scheduler, {"a": 1, "gone": 1})] == [False]
    assert [error.contained for error in struck(scheduler, {"b": 1})] == [False]


def test_nothing_is_zeroed_without_nan_or_in_a_cache_of_another_kind() -> None:
    scheduler = zeroing(Zeroing({"a": [3]}))
    assert struck(scheduler, {"a": 0}) == []
    assert scheduler._get_new_block_ids_to_zero() is None
    sliding = zeroing(Zeroing({"a": [3]}, full=False))
    assert [error.contained for error in struck(sliding, {"a": 1})] == [False]
    assert sliding._get_new_block_ids_to_zero() is None


@pytest.mark.parametrize(
    "message", ["graftline_nan ", "graftline_nan {}", 'graftline_nan {"at": "x"}', "graftline_nan 7"]
)
def test_a_mark_that_cannot_be_read_is_still_the_error(message: str) -> None:
    error = nan.read("e", message)
    assert isinstance(error, EnginePoisoned)
    assert (error.at, error.first, error.retryable) == (0.0, (), False)


@pytest.mark.vllm
@pytest.mark.slow
def test_the_vllm_that_is_installed_is_the_one_that_was_read() -> None:
    pytest.importorskip("vllm.version")
    twice = "from gateway.engines import tripwire; print(tripwire.install()); print(tripwire.install())"
    for counting, expected in (("1", f"{tripwire.DID}\n{tripwire.DID}\n"), ("0", "")):
        env = {**os.environ, "VLLM_COMPUTE_NANS_IN_LOGITS": counting}
        done = subprocess.run([sys.executable, "-c", twice], env=env, capture_output=True, text=True, timeout=300)
        assert done.stdout == expected, done.stderr
    assert "VLLM_COMPUTE_NANS_IN_LOGITS is not set to 1" in done.stderr
