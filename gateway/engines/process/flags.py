"""`[engine.args]`: any vLLM flag may be set, except those that are ours and those that break LoRA. Pure.

Names are vLLM's long ones, with or without dashes in front, `_` or `-` inside. `true` gives `--flag`, `false`
`--no-flag`, a list several values, a table JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SETTING = "it is a setting of its own: "
_ENDPOINT = "the engine answers on our socket only, to our gateway only"
_ONE_ENGINE = "a load must reach every process that serves; start more engines and give their URLs instead"
_PRIVACY = "prompts and answers must not reach the engine's log"

#: Flag → why it cannot be set.
REFUSED: dict[str, str] = {
    "model": _SETTING + "base",
    "model-tag": _SETTING + "base",
    "served-model-name": _SETTING + "base_name",
    "max-loras": _SETTING + "[engine] max_loras",
    "max-cpu-loras": _SETTING + "[engine] max_cpu_loras",
    "max-lora-rank": _SETTING + "[engine] max_lora_rank",
    "max-model-len": _SETTING + "[engine] max_model_len",
    "host": _ENDPOINT,
    "port": _ENDPOINT,
    "uds": _ENDPOINT,
    "api-key": _ENDPOINT,
    "root-path": _ENDPOINT,
    "grpc": _ENDPOINT,
    "grpc-port": _ENDPOINT,
    "middleware": _ENDPOINT,
    "ssl-keyfile": _ENDPOINT,
    "ssl-certfile": _ENDPOINT,
    "ssl-ca-certs": _ENDPOINT,
    "ssl-cert-reqs": _ENDPOINT,
    "ssl-ciphers": _ENDPOINT,
    "enable-ssl-refresh": _ENDPOINT,
    "config": "a file could set any of the flags that are refused here",
    "enable-lora": "adapters are what this engine is for",
    "lora-modules": "adapters come from the registry, under names that carry their digest",
    "default-mm-loras": "the engine would put an adapter on requests that asked for none",
    "lora-target-modules": "the engine would drop part of an adapter without a word",
    "enable-dbo": "vLLM cannot run LoRA with dual-batch overlap",
    "ubatch-size": "vLLM cannot run LoRA with dual-batch overlap",
    "api-server-count": _ONE_ENGINE,
    "data-parallel-size": _ONE_ENGINE,
    "data-parallel-size-local": _ONE_ENGINE,
    "data-parallel-rank": _ONE_ENGINE,
    "data-parallel-start-rank": _ONE_ENGINE,
    "data-parallel-hybrid-lb": _ONE_ENGINE,
    "data-parallel-external-lb": _ONE_ENGINE,
    "data-parallel-multi-port-external-lb": _ONE_ENGINE,
    "headless": _ONE_ENGINE,
    "tokens-only": "clients send text",
    "skip-tokenizer-init": "clients send text",
    "trust-request-chat-template": "a client's template is code that the engine would run",
    "enable-log-requests": _PRIVACY,
    "enable-log-outputs": _PRIVACY,
    "enable-log-deltas": _PRIVACY,
    "disable-log-stats": "placement and the dashboards read the engine's metrics",
    "enable-prompt-tokens-details": "always on: records say how many tokens came from the cache",
    "disable-uvicorn-access-log": "always on: the gateway records each request",
}

#: Refused where the engine runs on the CPU only.
REFUSED_ON_CPU: dict[str, str] = {
    "enforce-eager": "always on here: adapters are applied row by row, which vLLM cannot compile",
    "kv-cache-memory-bytes": _SETTING + "[engine] kv_cache_gib",
    "device-memory-utilization": _SETTING + "[engine] kv_cache_gib",
    "gpu-memory-utilization": _SETTING + "[engine] kv_cache_gib",
}

_SHORT = {"asc": "api-server-count", "dp": "data-parallel-size", "dpl": "data-parallel-size-local"} | {
    "dpr": "data-parallel-start-rank",
    "dpn": "data-parallel-rank",
    "dph": "data-parallel-hybrid-lb",
    "dpe": "data-parallel-external-lb",
    "dpm": "data-parallel-multi-port-external-lb",
}


class RefusedFlags(ValueError):
    """Flags under `[engine.args]` that cannot be set; the message names each with its reason."""

    code = "engine_flag_refused"
    retryable = False

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        lines = [f"  {flag}: {reason}" for flag, reason in sorted(reasons.items())]
        super().__init__("These flags cannot be set under [engine.args]; take them out:\n" + "\n".join(lines))


def render(args: Mapping[str, Any], *, device: str) -> list[str]:
    """`args` as vLLM's command line, sorted by name. Raises `RefusedFlags` with every flag that is refused."""
    refused = REFUSED | (REFUSED_ON_CPU if device == "cpu" else {})
    names = {key: canonical(key) for key in args}
    if bad := {key: refused[flag] for key, name in names.items() if (flag := _meant(name, refused)) in refused}:
        raise RefusedFlags(bad)
    return [part for key in sorted(args, key=names.__getitem__) for part in _words(names[key], args[key])]


def canonical(key: str) -> str:
    """`--max_num_seqs` → `max-num-seqs`. What follows a dot (`compilation-config.level`) keeps its spelling."""
    head, dot, rest = key.lstrip("-").partition(".")
    return head.replace("_", "-") + dot + rest


def _meant(name: str, refused: Mapping[str, str]) -> str:
    """The flag that a name turns on, off, reaches into or abbreviates: vLLM's parser takes any unique beginning."""
    head = name.partition(".")[0].removeprefix("no-").rstrip("+")
    head = _SHORT.get(head, head)
    return head if head in refused else next((flag for flag in refused if flag.startswith(head)), head)


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list | tuple):
        return [f"--{name}", *map(str, value)]
    if isinstance(value, Mapping):
        return [f"--{name}={json.dumps(value, sort_keys=True)}"]
    return [f"--{name}={value}"]
