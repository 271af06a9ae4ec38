"""Our vLLM general plugin: cures six faults of vLLM 0.32, and says in the engine's log whether it did.

1. Rows without an adapter, batched with rows that have one, get the adapter of the last slot (an index of -1 reads the
   last slot): the base answers with somebody's adapter. Cured by `punica` and `grouped`.
2. Without AMX the int8 kernel leaves `layer.weight = None`, whose device LoRA then asks for; the engine does not start.
3. The first request that asks for logprobs compiles one comparison for most of a second, and every stream waits for it.
   Done without the compiler.
4. Processes that wait for one another's steps spin for a second after the last one: an engine that is asked something
   twice a second never rests, and on two cores the spinning takes turns from the computing. They sleep after 1 ms.
5. Before every step each adapter of the batch is looked up in a copy of the list of all that are loaded, which takes a
   quarter of a millisecond where a thousand are. Looked up without the copy.
6. A request whose logits are NaN is answered with garbage and status 200. Ended with an error by `tripwire`.

The first four are the CPU's alone. Nothing is changed where vLLM's internals are not the ones that were read: then one
line, beginning with `OFF`, names the difference. `make engine-check` shows what that means for the answers;
`graftline doctor` looks for it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import time
from typing import Any

#: What the engine's log is searched for.
NAME = "graftline_cpu_lora"
ON = "graftline plugin on: "
OFF = "graftline plugin OFF: "

_PUNICA = "vllm.lora.punica_wrapper.punica_cpu"
_LAYERS = "vllm.lora.layers."
_WORKER = "vllm.lora.worker_manager"
_QUEUE = "vllm.distributed.device_communicators.shm_broadcast"

#: How long a reader spins after its last read: one step follows the other within about that.
SPIN_S = 0.001
#: A writer that notifies twice within about a millisecond loses the second (its queue holds one), and a reader asleep
#: would look again after five seconds. For as long as vLLM would have spun, it looks again this often.
RESTLESS_S = 1.0
LOOK_AGAIN_MS = 2

#: The parameters that our methods replace one for one, as of vLLM 0.32.0.
EXPECTED: dict[str, tuple[str, ...]] = {
    "update_metadata": ("self", "mapping", "lora_index_to_id", "max_loras", "vocab_size", "kwargs"),
    "add_shrink": ("self", "y", "x", "lora_a_stacked", "scale", "kwargs"),
    "add_expand": ("self", "y", "x", "lora_b_stacked", "output_slices", "offset_start", "add_inputs", "kwargs"),
    "add_lora_embedding": ("self", "y", "x", "lora_b_stacked", "add_inputs", "kwargs"),
    "add_lora_linear": (
        *("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices", "buffer", "kwargs"),
    ),
    "add_lora_logits": ("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "buffer", "kwargs"),
}
_PROPERTIES = ("token_lora_indices", "sampler_indices")


def register() -> None:
    """Called by vLLM in each of its processes, possibly more than once."""
    log = logging.getLogger("vllm.graftline")
    from vllm.platforms import current_platform

    cures = (_cure_mixed_batches, _cure_int8, _cure_compilation, _cure_spinning)
    of_the_cpu = cures if current_platform.is_cpu() else ()
    if not of_the_cpu:
        log.info("%sno mixed batches to cure on %s", ON, current_platform.device_type)
    for cure in (*of_the_cpu, _cure_lookups, _trip_on_nan):
        try:
            log.info("%s%s", ON, cure())
        except (ImportError, AttributeError, KeyError, TypeError) as error:
            log.error("%s%s: %s", OFF, cure.__name__.lstrip("_").removeprefix("cure_"), error)


def in_log(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the plugin said in an engine's log: (what it cured, what it could not). Both empty: it was not there."""
    lines = text.splitlines()
    on = dict.fromkeys(line.partition(ON)[2] for line in lines if ON in line)
    off = dict.fromkeys(line.partition(OFF)[2] for line in lines if OFF in line)
    return tuple(on), tuple(off)


def differences(wrapper: type) -> list[str]:
    """How vLLM's CPU wrapper differs from the one that our methods were written for."""
    found = [f"{name} is gone" for name in (*EXPECTED, *_PROPERTIES) if not hasattr(wrapper, name)]
    for name, expected in EXPECTED.items():
        method = getattr(wrapper, name, None)
        if method is None or getattr(method, "graftline", False):
            continue
        parameters = tuple(inspect.signature(method).parameters)
        if parameters != expected:
            found.append(f"{name} takes ({', '.join(parameters)}), expected ({', '.join(expected)})")
    return found


def _cure_mixed_batches() -> str:
    wrapper = importlib.import_module(_PUNICA).PunicaWrapperCPU
    if changed := differences(wrapper):
        raise TypeError("vLLM's CPU LoRA wrapper has changed: " + "; ".join(changed))
    if not getattr(wrapper.update_metadata, "graftline", False):
        install(wrapper)
    return "rows grouped by adapter, base rows untouched"


def install(wrapper: Any) -> None:
    """Put our methods on `wrapper`, marked so that a second registration leaves them alone."""
    from gateway.engines import punica

    theirs = wrapper.update_metadata

    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs(self, *args, **kwargs)
        punica.forget_plans(self)

    setattr(update_metadata, "graftline", True)  # noqa: B010
    wrapper.update_metadata = update_metadata
    for name in EXPECTED.keys() - {"update_metadata"}:
        method = getattr(punica, name)
        method.graftline = True
        setattr(wrapper, name, method)


def _cure_int8() -> str:
    """Layers whose weight was packed away live on the CPU."""
    import torch

    holders: list[Any] = [importlib.import_module(_LAYERS + name) for name in ("utils", "base_linear", "fused_moe")]
    theirs = holders[0]._get_lora_device
    if getattr(theirs, "graftline", False):
        return "LoRA on int8 layers"
    if tuple(inspect.signature(theirs).parameters) != ("base_layer",):
        raise TypeError(f"vLLM's _get_lora_device takes {inspect.signature(theirs)}, expected (base_layer)")

    def device(base_layer: Any) -> Any:
        packed_away = hasattr(base_layer, "weight") and base_layer.weight is None
        return torch.device("cpu") if packed_away else theirs(base_layer)

    setattr(device, "graftline", True)  # noqa: B010
    for holder in holders:
        holder._get_lora_device = device
    return "LoRA on int8 layers"


def _cure_compilation() -> str:
    """The ranks of logprobs: on a CPU a compiled kernel saves a mask of one byte for each number of four."""
    sampler: Any = importlib.import_module("vllm.v1.sample.sampler")
    theirs = sampler.batched_count_greater_than
    if not getattr(theirs, "graftline", False):
        plain = getattr(theirs, "_torchdynamo_orig_callable", theirs)
        if tuple(inspect.signature(plain).parameters) != ("x", "values"):
            raise TypeError(f"vLLM's batched_count_greater_than takes {inspect.signature(plain)}, expected (x, values)")
        plain.graftline = True
        sampler.batched_count_greater_than = plain
    return "logprobs without a compilation"


def _cure_spinning() -> str:
    module = importlib.import_module(_QUEUE)
    kind, now = module.SpinCondition, time.monotonic
    theirs, done = kind.wait, f"processes that wait sleep after {SPIN_S * 1000:g} ms"
    if getattr(theirs, "graftline", False):
        return done
    if tuple(inspect.signature(theirs).parameters) != ("self", "timeout_ms"):
        raise TypeError(f"vLLM's wait takes {inspect.signature(theirs)}, expected (self, timeout_ms)")
    if gone := {"last_read", "busy_loop_s", "poller"}.difference(theirs.__code__.co_names):
        raise TypeError(f"vLLM's wait does not look at {min(gone)} any more")

    def wait(self: Any, timeout_ms: int | None = None) -> None:
        self.busy_loop_s = SPIN_S
        if now() - self.last_read < RESTLESS_S:
            timeout_ms = LOOK_AGAIN_MS if timeout_ms is None else min(timeout_ms, LOOK_AGAIN_MS)
        theirs(self, timeout_ms)

    setattr(wait, "graftline", True)  # noqa: B010
    kind.wait = wait
    return done


def _cure_lookups() -> str:
    """An adapter that is loaded is moved to the front and into a slot, as vLLM does it after its search."""
    module = importlib.import_module(_WORKER)
    kind, permitted = module.LRUCacheWorkerLoRAManager, module.gpu_sync_allowed
    theirs = kind.add_adapter
    if getattr(theirs, "graftline", False):
        return "adapters looked up without a copy of their list"
    if tuple(inspect.signature(theirs).parameters) != ("self", "lora_request"):
        raise TypeError(f"vLLM's add_adapter takes {inspect.signature(theirs)}, expected (self, lora_request)")
    inside = importlib.import_module("vllm.lora.model_manager").LRUCacheLoRAModelManager
    if gone := [name for name in ("get_adapter", "activate_adapter") if not hasattr(inside, name)]:
        raise TypeError(f"vLLM's {inside.__name__} has no {gone[0]} any more")

    def add_adapter(self: Any, lora_request: Any) -> bool:
        manager, number = self._adapter_manager, lora_request.lora_int_id
        if lora_request.load_inplace or number not in manager._registered_adapters:
            return bool(theirs(self, lora_request))
        with permitted():
            manager.get_adapter(number)
            manager.activate_adapter(number)
        return True

    setattr(add_adapter, "graftline", True)  # noqa: B010
    kind.add_adapter = add_adapter
    return "adapters looked up without a copy of their list"


def _trip_on_nan() -> str:
    from gateway.engines import tripwire

    return tripwire.install()
