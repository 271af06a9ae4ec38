"""Engines for tests: real vLLM, started once for the whole run, and adapters small enough to make on the spot."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gateway.engines.process import launch
from training.base import PATH as BASE
from training.launchers.local import KEEPER

#: The name that the base is served by, here and in `graftline up`.
MODEL = "tidewell"
MAX_MODEL_LEN = 1024
#: For every client of httpx: it reads the system's certificates for 30 ms otherwise, also where nothing is encrypted.
TLS = ssl.create_default_context()
_START_S = 600.0  # a minute on two quiet cores, several when they are shared
_STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEngine:
    """A vLLM that answers at `url` (`unix:/…`); `log` is what it has written."""

    url: str
    log: Path
    pid: int


@pytest.fixture(scope="session")
def vllm_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """Real vLLM on the embedded base, one for the session. Tests unload what they load."""
    if importlib.util.find_spec("vllm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("vLLM is not installed, and in CI it must be")
        pytest.skip("vLLM is not installed here")
    folder = tmp_path_factory.mktemp("vllm")
    listens_on = launch.make_socket_folder(folder / "run" / "engine.sock")
    settings = launch.EngineSettings(
        model=str(BASE), served_name=MODEL, socket=listens_on, max_model_len=MAX_MODEL_LEN, kv_cache_gib=1
    )
    plan = launch.plan(settings, undisturbed(os.environ))
    log = folder / "vllm.log"
    ours, theirs = socket.socketpair()  # the keeper kills the engine when our end closes, however we end
    with log.open("wb") as out:
        argv = [sys.executable, "-I", "-S", str(KEEPER), str(theirs.fileno()), *plan.argv]
        process = subprocess.Popen(argv, env=dict(plan.env), stdout=out, stderr=out, pass_fds=(theirs.fileno(),))
    theirs.close()
    try:
        _wait_until_healthy(process, listens_on, log)
        yield RunningEngine(url=plan.url, log=log, pid=process.pid)
    finally:
        _stop(process, ours)


def undisturbed(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what `make test` bounds its own processes by: an engine takes what it takes elsewhere."""
    return {name: value for name, value in environ.items() if name != "OMP_NUM_THREADS"}


def tiny_adapter(folder: Path, *, seed: int = 0, rank: int = 4, scale: float = 1.0, base: Path = BASE) -> Path:
    """A LoRA of random weights on q and v of every layer of `base`: valid, loadable, and loud at scale 1."""
    config = json.loads((base / "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    out = {"q_proj": heads * width, "v_proj": config["num_key_value_heads"] * width}
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module, size in out.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{key}.lora_A.weight"] = rng.normal(0, scale, (rank, hidden)).astype(np.float32)
            tensors[f"{key}.lora_B.weight"] = rng.normal(0, scale, (size, rank)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": 2 * rank,
        "bias": "none",
        "target_modules": sorted(out),
    }
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder


def _wait_until_healthy(process: subprocess.Popen[bytes], listens_on: Path, log: Path) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        if _healthy(listens_on):
            return
        time.sleep(0.2)
    pytest.fail(f"vLLM did not become healthy (exit {process.poll()}):\n{log.read_text(errors='replace')[-4000:]}")


def _healthy(listens_on: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(listens_on))
            client.sendall(b"GET /health HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n\r\n")
            return client.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def _stop(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        ours.close()
        process.wait(_STOP_S)
