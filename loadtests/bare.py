"""vLLM as anyone would start it: no gateway, no plugin of ours, its load route open. The contrast in other targets."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loadtests.markers import BASE
from loadtests.stack import Stack, call, free_port, wait_for

NAME = "bare"
MODEL = "tidewell"
START_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """A running engine. `ask` it on `port` without a key, by the base's name or by an adapter's."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def load(self, name: str, folder: Path) -> tuple[int, str, float]:
        """(status, what it said, seconds)."""
        began = time.monotonic()
        body = {"lora_name": name, "lora_path": str(folder)}
        status, said = call("POST", f"{self.url}/v1/load_lora_adapter", body, timeout_s=180)
        return status, said.decode(errors="replace"), time.monotonic() - began

    def unload(self, name: str) -> int:
        return call("POST", f"{self.url}/v1/unload_lora_adapter", {"lora_name": name})[0]


def bare(running: Stack, *, max_loras: int = 16, max_cpu_loras: int = 1024) -> Bare:
    """Start it with the flags of a CPU machine; returns once it is healthy."""
    port = free_port()
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(BASE)]
    argv += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--enable-lora", "--max-loras", str(max_loras), "--max-cpu-loras", str(max_cpu_loras)]
    argv += ["--max-lora-rank", "16", "--disable-uvicorn-access-log"]
    argv += ["--enforce-eager", "--kv-cache-memory-bytes", str(1 << 30), "--dtype", "bfloat16"]
    env = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_PLUGINS": "none",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",
    }
    process = running.start(NAME, argv, env)
    with suppress(OSError):  # its workers spin; without this the clients that measure it would wait for their turn
        Path(f"/proc/{process.pid}/autogroup").write_text("10\n")
    try:
        wait_for(f"http://127.0.0.1:{port}/health", timeout_s=START_S, lives=lambda: process.poll() is None)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{running.log(NAME)[-3000:]}") from error
    return Bare(port=port)
