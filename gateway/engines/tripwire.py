"""The plugin's piece that ends a request whose logits are NaN, at once and with an error that says so.

vLLM counts NaN logits by request where `VLLM_COMPUTE_NANS_IN_LOGITS` is set, and still answers 200 with garbage. Here
the scheduler, which sees each step's counts before any of its tokens leaves, ends such a request instead, and the front
end turns its end into our error (`nan`). So whose adapter it was is known from the request itself. Pure Python on both
sides, the same on every device.

On the CPU the blocks that such a request leaves behind are zeroed as well, by the means that vLLM has for other models,
before anybody else is given them: NaN in a block's unused places is what poisons neighbours (measured: 144 of 144
answers without this, 0 of 144 with it). On a GPU vLLM prepares its zeroing kernel only for models that need it, so
there the poison stays until the replica is recycled.
"""

from __future__ import annotations

import importlib
import inspect
import json
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from gateway.engines import nan

#: The base among those who were first; its real name may be a path.
BASE = "base"
DID = "requests whose logits are NaN end with an error"

#: The parameters of what we wrap or call, as of vLLM 0.32.0.
EXPECTED: dict[tuple[str, str], tuple[str, ...]] = {
    ("Scheduler", "update_from_output"): ("self", "scheduler_output", "model_runner_output"),
    ("Scheduler", "finish_requests"): ("self", "request_ids", "finished_status"),
    ("Scheduler", "_get_new_block_ids_to_zero"): ("self",),
    ("KVCacheManager", "get_block_ids"): ("self", "request_id"),
    ("BlockPool", "evict_blocks"): ("self", "block_ids"),
    ("OutputProcessor", "process_outputs"): (
        *("self", "engine_core_outputs", "engine_core_timestamp", "iteration_stats", "weight_version"),
    ),
    ("RequestOutputCollector", "put"): ("self", "output"),
    ("OpenAIServingResponses", "_convert_generation_error_to_streaming_response"): ("self", "e"),
    ("GracefulHTTPError", "__init__"): ("self", "message", "http_status"),
}
_FRONT_END = "vllm.entrypoints.openai.api_server"
_RESPONSES = "vllm.entrypoints.openai.responses.serving"
_OUTPUT_FIELDS = ("request_id", "new_token_ids", "finish_reason", "stop_reason", "events", "num_nans_in_logits")


def install() -> str:
    """Wrap vLLM's scheduler and output processor, once; returns what that does. Raises TypeError where they differ."""
    from vllm import envs, exceptions
    from vllm.platforms import current_platform
    from vllm.v1 import engine
    from vllm.v1.engine import output_processor
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.request import RequestStatus

    scheduler = importlib.import_module("vllm.v1.core.sched.async_scheduler").Scheduler
    if not envs.VLLM_COMPUTE_NANS_IN_LOGITS:
        raise TypeError("VLLM_COMPUTE_NANS_IN_LOGITS is not set to 1, so nothing counts them")
    processor: Any = output_processor.OutputProcessor
    classes = {
        "Scheduler": scheduler,
        "KVCacheManager": importlib.import_module("vllm.v1.core.kv_cache_manager").KVCacheManager,
        "BlockPool": importlib.import_module("vllm.v1.core.block_pool").BlockPool,
        "OutputProcessor": processor,
        "RequestOutputCollector": output_processor.RequestOutputCollector,
        "GracefulHTTPError": exceptions.GracefulHTTPError,
    }
    serving: Any = importlib.import_module(_RESPONSES) if _is_front_end() else None
    if serving is not None:
        classes["OpenAIServingResponses"] = serving.OpenAIServingResponses
    if changed := differences(classes, engine.EngineCoreOutput):
        raise TypeError("vLLM has changed: " + "; ".join(changed))
    if not getattr(scheduler.update_from_output, "graftline", False):
        wrap_scheduler(scheduler, engine.EngineCoreOutput, engine.EngineCoreOutputs, RequestStatus.FINISHED_ERROR)
        error = _error(exceptions)
        wrap_processor(processor, error)
        if serving is not None:
            wrap_responses(serving.OpenAIServingResponses, error)
        if current_platform.is_cpu():
            wrap_zeroing(scheduler, FullAttentionSpec)
    return DID


def differences(classes: dict[str, Any], output: Any) -> list[str]:
    """How vLLM differs from the one that this was written for."""
    found = []
    for (owner, name), expected in EXPECTED.items():
        if owner not in classes:
            continue  # only the front end has it
        method = getattr(classes[owner], name, None)
        if getattr(method, "graftline", False):
            continue
        parameters = tuple(inspect.signature(method).parameters) if method is not None else ()
        if parameters != expected:
            found.append(f"{owner}.{name} takes ({', '.join(parameters)}), expected ({', '.join(expected)})")
    found += [
        f"{child.__name__} has an update_from_output of its own"
        for child in classes["Scheduler"].__subclasses__()
        if "update_from_output" in vars(child)
    ]
    found += [f"EngineCoreOutput has no {name}" for name in _OUTPUT_FIELDS if not hasattr(output, name)]
    return found


def wrap_scheduler(scheduler: Any, output: Any, outputs: Any, failed: Any) -> None:
    """End requests with NaN before their step's tokens are looked at. In the engine's core."""
    theirs = scheduler.update_from_output

    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        counts = model_runner_output.num_nans_in_logits
        if not counts or not any(counts.values()):
            return theirs(self, scheduler_output, model_runner_output)
        hit = [request_id for request_id, count in counts.items() if count]
        message = nan.write(**_first(self, hit), contained=getattr(self, "graftline_contained", False))
        ended = self.finish_requests(hit, failed)  # from here on theirs skips them
        found = theirs(self, scheduler_output, model_runner_output)
        for request in ended:
            told = output(
                request_id=request.request_id,
                new_token_ids=[],
                finish_reason=request.get_finished_reason(),
                stop_reason=message,
                events=request.take_events(),
                num_nans_in_logits=counts[request.request_id],
            )
            if request.client_index not in found:
                found[request.client_index] = outputs()
            found[request.client_index].outputs.append(told)
        return found

    setattr(update_from_output, "graftline", True)  # noqa: B010
    scheduler.update_from_output = update_from_output


def wrap_zeroing(scheduler: Any, zeroed: type) -> None:
    """Have the workers zero what ended requests leave behind, at the next step and so before it is read again.

    vLLM's CPU worker zeroes the groups of full attention only (`zeroed`); with any other group nothing is done.
    """
    update, new_blocks = scheduler.update_from_output, scheduler._get_new_block_ids_to_zero

    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        counts = model_runner_output.num_nans_in_logits
        if not counts or not any(counts.values()):
            return update(self, scheduler_output, model_runner_output)
        if not all(isinstance(group.kv_cache_spec, zeroed) for group in self.kv_cache_config.kv_cache_groups):
            return update(self, scheduler_output, model_runner_output)
        cache = self.kv_cache_manager
        hit = [request_id for request_id, count in counts.items() if count]
        whole = all(
            request_id in self.requests for request_id in hit
        )  # else its client left, and nobody knows its blocks
        self.graftline_contained = whole and getattr(self, "graftline_contained", True)
        hit = [request_id for request_id in hit if request_id in self.requests]
        held = {block for request_id in hit for group in cache.get_block_ids(request_id) for block in group}
        found = update(self, scheduler_output, model_runner_output)
        blocks = cache.block_pool.blocks
        left = {block for block in held if blocks[block].ref_cnt == 0 and not blocks[block].is_null}
        cache.block_pool.evict_blocks(left)  # a prefix of zeros is no prefix
        self.graftline_left = getattr(self, "graftline_left", set()) | left
        return found

    def _get_new_block_ids_to_zero(self: Any) -> list[int] | None:
        left: set[int] = getattr(self, "graftline_left", set())
        self.graftline_left = set()
        return [*(new_blocks(self) or ()), *sorted(left)] or None

    for method in (update_from_output, _get_new_block_ids_to_zero):
        setattr(method, "graftline", True)  # noqa: B010
        setattr(scheduler, method.__name__, method)


def _first(scheduler: Any, hit: list[str]) -> dict[str, Any]:
    """When NaN came, and when and from whom for the first time since this engine's start."""
    now = time.time()
    known = getattr(scheduler, "graftline_first", None)
    if known is None:
        requests = [scheduler.requests.get(request_id) for request_id in hit]  # None: its client has left
        names = ["" if request is None else _whose(request) for request in requests]
        known = scheduler.graftline_first = (now, tuple(dict.fromkeys(names)))
    return {"at": now, "first_at": known[0], "first": known[1]}


def _whose(request: Any) -> str:
    return str(request.lora_request.lora_name) if request.lora_request is not None else BASE


def wrap_processor(processor: Any, error: Any) -> None:
    """Give what waits for such a request our error instead of an answer. In the front end's process."""
    theirs = processor.process_outputs

    def process_outputs(self: Any, engine_core_outputs: Any, *args: Any, **kwargs: Any) -> Any:
        struck = [
            (state.queue, each.stop_reason)
            for each in engine_core_outputs
            if type(each.stop_reason) is str and each.stop_reason.startswith(nan.MARK) and each.num_nans_in_logits
            # taken before theirs forgets it
            if (state := self.request_states.get(each.request_id)) is not None and state.queue is not None
        ]
        processed = theirs(self, engine_core_outputs, *args, **kwargs)
        for queue, message in struck:
            queue.put(error(message))
        return processed

    setattr(process_outputs, "graftline", True)  # noqa: B010
    processor.process_outputs = process_outputs


def wrap_responses(serving: Any, error: type[Exception]) -> None:
    """Our error within a stream of the Responses API, as an event. vLLM has no words for one there: it builds an event
    that its own schema refuses, and the connection breaks off."""
    theirs, worded = serving.responses_stream_generator, serving._convert_generation_error_to_streaming_response

    def _convert_generation_error_to_streaming_response(self: Any, e: Exception) -> Any:
        if isinstance(e, error):
            raise e
        return worded(self, e)

    async def responses_stream_generator(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async for event in theirs(self, *args, **kwargs):
                yield event
        except error as struck:
            yield Failed(str(struck))

    for method in (responses_stream_generator, _convert_generation_error_to_streaming_response):
        setattr(serving, method.__name__, method)


class Failed:
    """What vLLM's writer of events needs: a type, and the JSON."""

    type = "error"

    def __init__(self, message: str) -> None:
        self._message = message

    def model_dump_json(self, **_: Any) -> str:
        error = {"message": self._message, "type": "InternalServerError", "param": None, "code": 500}
        return json.dumps({"error": error})


def _is_front_end() -> bool:
    """Whether this process speaks HTTP; the others need not load what does."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    loaded = _FRONT_END in sys.modules or (main is not None and main.name == _FRONT_END)
    return loaded and multiprocessing.parent_process() is None


def _error(exceptions: Any) -> Any:
    """An exception that vLLM passes on as it is (`GracefulHTTPError`) and logs without a trace (`GenerationError`)."""

    class NanLogits(exceptions.GracefulHTTPError, exceptions.GenerationError):  # type: ignore[misc]
        def __init__(self, message: str) -> None:
            exceptions.GracefulHTTPError.__init__(self, message, HTTPStatus.INTERNAL_SERVER_ERROR)
            self.status_code = HTTPStatus.INTERNAL_SERVER_ERROR

    return NanLogits
