"""The CLI as a person meets it: what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from loadtests.stack import free_port

pytestmark = pytest.mark.slow


def graftline(home: Path, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
    outside = {k: v for k, v in os.environ.items() if not k.startswith("GRAFTLINE_")}
    ours = {f"GRAFTLINE_{name.upper()}": value for name, value in settings.items()}
    env = {**outside, "GRAFTLINE_HOME": str(home), "COLUMNS": "200", **ours}
    argv = [sys.executable, "-m", "gateway.cli", *args]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, cwd=home)


@pytest.mark.vllm
def test_doctor_says_what_was_chosen_and_finds_nothing_wrong(tmp_path: Path) -> None:
    done = graftline(tmp_path, "doctor", port=str(free_port()))
    assert done.returncode == 0, done.stdout
    assert "vllm" in done.stdout
    assert "tidewell" in done.stdout
    assert "BAD" not in done.stdout


def test_doctor_names_what_is_wrong_and_exits_with_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = graftline(tmp_path, "doctor", port=str(taken.getsockname()[1]), base="no/such-model")
    assert done.returncode == 1
    assert done.stdout.count("BAD") >= 2
    assert "GRAFTLINE_BASE" in done.stdout


def test_up_says_at_once_that_the_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = graftline(tmp_path, "up", port=str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "bad_settings" in done.stdout
    assert "GRAFTLINE_PORT" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_bad_settings_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "graftline.toml").write_text('colour = "red"\n[engine]\nmax_loras = 0\n')
    done = graftline(tmp_path, "config", port="70000")
    assert done.returncode == 1
    assert all(name in done.stdout for name in ("colour", "engine.max_loras", "port"))


def test_config_explains_every_setting(tmp_path: Path) -> None:
    done = graftline(tmp_path, "config")
    assert done.returncode == 0
    assert "snapshot_poll_ms" in done.stdout
    assert "engine.max_cpu_loras" in done.stdout


def test_a_key_made_by_the_cli_is_listed_and_revoked_without_its_secret(tmp_path: Path) -> None:
    secret = graftline(tmp_path, "keys", "create", "--name", "web app", "--tenant", "shop").stdout.strip()
    assert secret.startswith("gl-")
    listed = graftline(tmp_path, "keys", "list").stdout
    assert "web app" in listed
    assert secret.split("-", 2)[2] not in listed
    assert graftline(tmp_path, "keys", "revoke", secret.split("-")[1]).returncode == 0
    unknown = graftline(tmp_path, "keys", "revoke", "nobody")
    assert unknown.returncode == 1
    assert "key_not_found" in unknown.stdout


def test_a_broken_adapter_is_refused_with_every_reason(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "use_dora": True}))
    save_file({"nonsense": np.zeros((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    done = graftline(tmp_path, "adapters", "register", str(folder), "--name", "support")
    assert done.returncode == 1
    assert "adapter_rejected" in done.stdout
    assert "use_dora" in done.stdout


def test_quantize_makes_a_w4a16_checkpoint(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    rng = np.random.default_rng(0)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({name: rng.normal(size=(64, 128)).astype(np.float32)}, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    done = graftline(tmp_path, "quantize", str(source), str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 layers" in done.stdout
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["format"] == "pack-quantized"
    again = graftline(tmp_path, "quantize", str(source), str(tmp_path / "out"))
    assert again.returncode == 1
    assert "Traceback" not in again.stdout + again.stderr
