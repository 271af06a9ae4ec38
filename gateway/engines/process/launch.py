"""How vLLM is started: its command line and environment, from `EngineSettings`. Nothing is started here.

The engine listens on a unix socket in a folder of mode 0700, so that whoever is not us cannot reach its control API.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.engines.plugin import NAME as PLUGIN
from gateway.engines.process import devices, flags
from training.share import CALM

#: What vLLM takes for --max-lora-rank.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

#: The kernel's limit on a unix socket's path, less its closing zero.
SOCKET_PATH_BYTES_MAX = 107
_UUID_BYTES = 36

#: Variables of the caller that must not reach the engine: they open it, change whose weights answer, or are secrets.
_DROPPED = frozenset(
    {
        "PYTHONDONTWRITEBYTECODE",
        "VLLM_API_KEY",
        "VLLM_SKIP_MODEL_NAME_VALIDATION",
        "VLLM_PLUGINS",
        "VLLM_SERVER_DEV_MODE",
    }
)
_DROPPED_PREFIXES = ("GRAFTLINE_", "VLLM_LORA_RESOLVER_")


class BadLaunch(ValueError):
    """Settings from which no engine can be started; the message says which and what is allowed."""

    code = "bad_engine_settings"
    retryable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """One local vLLM. `None` means: by device and memory (`devices.choose_slots`), or the model's own.

    `model` is a folder or a hub id; `kv_cache_gib` counts on the CPU only; `args` are `[engine.args]`; `plugins` are
    further vLLM plugins to load beside ours (hardware platforms, say), by entry point name.
    """

    model: str
    served_name: str
    socket: Path
    device: str = "auto"
    max_loras: int | None = None
    max_cpu_loras: int | None = None
    max_lora_rank: int = 16
    max_model_len: int | None = None
    kv_cache_gib: float | None = None
    python: str = sys.executable
    args: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a supervisor needs to start the engine, and what was decided on the way."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    url: str
    device: devices.Device
    slots: devices.Slots
    installed: devices.Installed


def plan(settings: EngineSettings, environ: Mapping[str, str]) -> Launch:
    """Look at this machine and decide. Raises `NoDevice`, `RefusedFlags` or `BadLaunch`; blocks for up to a second."""
    gpus, installed = devices.find_gpus(), devices.find_installed(settings.python)
    device = devices.choose_device(settings.device, gpus=gpus, installed=installed)
    assert installed is not None
    size = devices.adapter_bytes(devices.read_config(settings.model), _rank(settings))
    slots = devices.choose_slots(
        device,
        adapter_bytes=size,
        gpu_bytes=min((gpu.memory_bytes for gpu in gpus), default=0),
        host_bytes=devices.host_bytes(),
    )
    return Launch(
        argv=command(settings, device=device, slots=slots),
        env=environment(settings, environ, device=device),
        url=f"unix:{settings.socket}",
        device=device,
        slots=_slots(settings, slots),
        installed=installed,
    )


def command(settings: EngineSettings, *, device: devices.Device, slots: devices.Slots) -> tuple[str, ...]:
    """The engine's argv. `python -m`, since the `vllm` script of the CPU build fails for want of metadata."""
    chosen = _slots(settings, slots)
    if chosen.cached < chosen.batch:
        raise BadLaunch(f"[engine] max_cpu_loras is {chosen.cached}, below max_loras {chosen.batch}: raise it.")
    argv = [settings.python, "-m", "vllm.entrypoints.openai.api_server"]
    argv += ["--model", settings.model, "--served-model-name", settings.served_name, "--uds", str(settings.socket)]
    argv += ["--enable-lora", "--max-loras", str(chosen.batch), "--max-cpu-loras", str(chosen.cached)]
    argv += ["--max-lora-rank", str(_rank(settings)), "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    if settings.max_model_len is not None:
        argv += ["--max-model-len", str(settings.max_model_len)]
    if device == "cpu":
        argv += ["--enforce-eager", "--kv-cache-memory-bytes", str(int((settings.kv_cache_gib or 1) * (1 << 30)))]
        if not {"dtype"} & {flags.canonical(key) for key in settings.args}:
            argv += ["--dtype", "bfloat16"]
    return (*argv, *flags.render(settings.args, device=device))


def environment(settings: EngineSettings, environ: Mapping[str, str], *, device: devices.Device) -> Mapping[str, str]:
    """The engine's environment: the caller's, less what must not reach it, with ours on top."""
    env = {
        name: value
        for name, value in environ.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
    env |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_PLUGINS": ",".join((PLUGIN, *settings.plugins)),
        "VLLM_RPC_BASE_PATH": str(_inner_folder(settings.socket)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # what lies in the working folder is not imported, nor does it hide installed plugins
    }
    if device == "cpu":
        env.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would overrule --kv-cache-memory-bytes, and takes whole GiB only
        env = {**CALM, **env}  # spinning threads starve the gateway on a small machine
    if Path(settings.model).is_dir():
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return env


def make_socket_folder(socket: Path) -> Path:
    """Make the socket's folder, owned by us with mode 0700, without a dead engine's sockets; returns where to listen.

    A path that is too long for the kernel moves to a private folder under the temporary directory, the same at each
    start. Raises `BadLaunch` where a folder belongs to somebody else.
    """
    if len(os.fsencode(socket)) > SOCKET_PATH_BYTES_MAX:
        socket = _short_folder(socket) / socket.name
    inner = _inner_folder(socket)
    for folder in dict.fromkeys((socket.parent, inner.parent, inner)):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise BadLaunch(f"{folder} is not a folder of ours: remove it, or set GRAFTLINE_HOME to another place.")
        folder.chmod(0o700)
    socket.unlink(missing_ok=True)
    for left in inner.iterdir():
        left.unlink(missing_ok=True)
    return socket


def _inner_folder(socket: Path) -> Path:
    """Where vLLM's processes meet each other: beside the socket, or where their longer names fit."""
    beside = socket.parent / "ipc"
    fits = len(os.fsencode(beside)) + 1 + _UUID_BYTES <= SOCKET_PATH_BYTES_MAX
    return beside if fits else _short_folder(socket) / "ipc"


def _short_folder(socket: Path) -> Path:
    name = hashlib.sha256(os.fsencode(socket.absolute())).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"graftline-{os.getuid()}-{name}"


def _rank(settings: EngineSettings) -> int:
    """The smallest rank that vLLM takes and that holds the setting."""
    for rank in RANKS:
        if rank >= settings.max_lora_rank:
            return rank
    raise BadLaunch(f"[engine] max_lora_rank is {settings.max_lora_rank}; vLLM takes up to {RANKS[-1]}.")


def _slots(settings: EngineSettings, default: devices.Slots) -> devices.Slots:
    batch = settings.max_loras or default.batch
    return devices.Slots(batch=batch, cached=settings.max_cpu_loras or max(batch, default.cached))
