from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.process import launch
from gateway.engines.process.devices import Slots
from gateway.engines.process.launch import BadLaunch, EngineSettings

DEFAULT = Slots(batch=16, cached=1024)


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    return EngineSettings(model=str(tmp_path), served_name="tidewell", socket=tmp_path / "run" / "engine.sock")


def value(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_the_engine_is_started_as_a_module_on_a_socket_with_adapters_on(settings: EngineSettings) -> None:
    argv = launch.command(settings, device="cpu", slots=DEFAULT)
    assert argv[:3] == (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    assert value(argv, "--uds") == str(settings.socket)
    assert value(argv, "--served-model-name") == "tidewell"
    assert (value(argv, "--max-loras"), value(argv, "--max-cpu-loras")) == ("16", "1024")
    assert value(argv, "--max-lora-rank") == "16"
    assert value(argv, "--kv-cache-memory-bytes") == str(1 << 30)
    assert value(argv, "--dtype") == "bfloat16"
    assert {"--enable-lora", "--enforce-eager", "--enable-prompt-tokens-details"} <= set(argv)
    assert not {"--host", "--port", "--api-key"} & set(argv)


def test_settings_come_before_defaults(settings: EngineSettings) -> None:
    mine = replace(settings, max_loras=2, max_cpu_loras=8, max_model_len=512, kv_cache_gib=0.5, args={"dtype": "float"})
    argv = launch.command(mine, device="cpu", slots=DEFAULT)
    assert (value(argv, "--max-loras"), value(argv, "--max-cpu-loras")) == ("2", "8")
    assert value(argv, "--max-model-len") == "512"
    assert value(argv, "--kv-cache-memory-bytes") == str(1 << 29)
    assert "--dtype" not in argv
    assert "--dtype=float" in argv


def test_a_gpu_engine_compiles_and_sizes_its_cache_itself(settings: EngineSettings) -> None:
    argv = launch.command(settings, device="cuda", slots=DEFAULT)
    assert not {"--enforce-eager", "--kv-cache-memory-bytes", "--dtype"} & set(argv)


@pytest.mark.parametrize(("asked", "given"), [(1, "1"), (4, "8"), (16, "16"), (17, "32"), (512, "512")])
def test_a_rank_is_rounded_up_to_one_that_vllm_takes(settings: EngineSettings, asked: int, given: str) -> None:
    argv = launch.command(replace(settings, max_lora_rank=asked), device="cpu", slots=DEFAULT)
    assert value(argv, "--max-lora-rank") == given


def test_a_rank_beyond_vllms_is_refused(settings: EngineSettings) -> None:
    with pytest.raises(BadLaunch, match="max_lora_rank is 513; vLLM takes up to 512"):
        launch.command(replace(settings, max_lora_rank=513), device="cpu", slots=DEFAULT)


def test_fewer_cached_than_batched_adapters_is_refused(settings: EngineSettings) -> None:
    with pytest.raises(BadLaunch, match="max_cpu_loras is 4, below max_loras 16"):
        launch.command(replace(settings, max_cpu_loras=4), device="cpu", slots=DEFAULT)


def test_raising_the_slots_raises_what_can_be_cached_with_them(settings: EngineSettings) -> None:
    argv = launch.command(replace(settings, max_loras=64), device="cuda", slots=Slots(batch=4, cached=10))
    assert value(argv, "--max-cpu-loras") == "64"


def test_the_engine_gets_no_secrets_of_ours_and_nothing_that_opens_it(settings: EngineSettings) -> None:
    theirs = {
        "PATH": "/bin",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "GRAFTLINE_DATABASE_URL": "postgresql://secret",
        "VLLM_API_KEY": "x",
        "VLLM_SKIP_MODEL_NAME_VALIDATION": "1",
        "VLLM_LORA_RESOLVER_CACHE_DIR": "/tmp",
        "VLLM_PLUGINS": "lora_filesystem_resolver",
        "VLLM_CPU_KVCACHE_SPACE": "40",
        "VLLM_SERVER_DEV_MODE": "1",
    }
    env = launch.environment(settings, theirs, device="cpu")
    assert {name for name in theirs if name in env} == {"PATH", "VLLM_LOGGING_LEVEL", "VLLM_PLUGINS"}
    assert env["VLLM_PLUGINS"] == "graftline_cpu_lora"
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert env["VLLM_NO_USAGE_STATS"] == env["DO_NOT_TRACK"] == env["PYTHONSAFEPATH"] == "1"


def test_a_folder_is_served_offline_and_a_hub_id_is_not(settings: EngineSettings) -> None:
    assert launch.environment(settings, {}, device="cpu")["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in launch.environment(replace(settings, model="org/model"), {}, device="cpu")


def test_further_plugins_are_loaded_beside_ours(settings: EngineSettings) -> None:
    env = launch.environment(replace(settings, plugins=("ascend",)), {}, device="cuda")
    assert env["VLLM_PLUGINS"] == "graftline_cpu_lora,ascend"


def test_threads_wait_without_spinning_unless_told_otherwise(settings: EngineSettings) -> None:
    assert launch.environment(settings, {}, device="cpu")["OMP_WAIT_POLICY"] == "passive"
    assert launch.environment(settings, {"OMP_WAIT_POLICY": "active"}, device="cpu")["OMP_WAIT_POLICY"] == "active"


def test_the_sockets_folder_is_private_and_free_of_a_dead_engines_sockets(
    tmp_path: Path, settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "SOCKET_PATH_BYTES_MAX", 4096)  # however long this test's own folder is
    socket = tmp_path / "run" / "engine.sock"
    (socket.parent / "ipc").mkdir(parents=True, mode=0o755)
    socket.touch()
    (socket.parent / "ipc" / "old").touch()
    (socket.parent / "gateway.sock").touch()
    assert launch.make_socket_folder(socket) == socket
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert not socket.exists()
    assert (socket.parent / "gateway.sock").exists()
    inner = Path(launch.environment(replace(settings, socket=socket), {}, device="cpu")["VLLM_RPC_BASE_PATH"])
    assert stat.S_IMODE(inner.stat().st_mode) == 0o700
    assert not list(inner.iterdir())


def test_a_path_too_long_for_the_kernel_moves_to_a_private_folder_the_same_each_time(tmp_path: Path) -> None:
    socket = tmp_path / ("deep" * 30) / "run" / "engine.sock"
    found = launch.make_socket_folder(socket)
    try:
        assert found != socket
        assert found == launch.make_socket_folder(socket)
        assert len(os.fsencode(found)) < 80
        assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    finally:
        (found.parent / "ipc").rmdir()
        found.parent.rmdir()


def test_a_folder_behind_a_link_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadLaunch, match="not a folder of ours"):
        launch.make_socket_folder(tmp_path / "run" / "e.sock")
