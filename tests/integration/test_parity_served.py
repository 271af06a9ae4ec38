"""Real vLLM against the probe: what was probed is certified, and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import load_file, save_file

from adapters.checks.parity import certificate
from adapters.checks.probe import Recorded
from gateway.engines.fleet.prove import certify
from gateway.engines.vllm import Vllm
from tests.engines import MODEL, RunningEngine, tiny_adapter
from training.base import PATH as BASE
from training.probe.client import WarmProber

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
pytest.importorskip("peft")


@pytest.fixture
def folders(markers: Path, tmp_path: Path) -> Mapping[str, Path]:
    """Strong, weak and barely different adapters."""
    found = {word.name: word for word in sorted(markers.iterdir())[:3]}
    found["quiet"] = tiny_adapter(tmp_path / "quiet", seed=3, scale=0.03)
    found["plain"] = tiny_adapter(tmp_path / "plain", seed=4, scale=0.1)
    name, source = next(iter(found.items()))
    for label, factor in (("tenth", 0.1), ("nearly", 0.95)):
        copy = found[f"{name} {label}"] = tmp_path / label
        shutil.copytree(source, copy)
        weights = load_file(copy / "adapter_model.safetensors")
        weak = {k: np.ascontiguousarray(v * np.float32(factor)) if "lora_B" in k else v for k, v in weights.items()}
        save_file(weak, copy / "adapter_model.safetensors")
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def engine(vllm_engine: RunningEngine) -> AsyncIterator[Vllm]:
    vllm = Vllm("real", vllm_engine.url)
    yield vllm
    for name in await vllm.adapters():
        await vllm.unload(name)
    await vllm.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prober(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WarmProber]:
    made = WarmProber(BASE, tmp_path_factory.mktemp("prober") / "probe.log", timeout_s=60)
    yield made
    await made.close()


async def test_each_adapter_is_certified_by_itself_and_by_no_other(
    engine: Vllm, prober: WarmProber, folders: Mapping[str, Path]
) -> None:
    known: dict[str, Recorded] = {}
    for name, folder in folders.items():
        known[name] = await prober.probe(folder, digest=name)
    served: dict[str, list[tuple[float, ...]]] = {}
    prompts = next(iter(known.values())).prompts
    for name, folder in folders.items():
        await engine.load(f"{name}@1", str(folder))
    for name in [*folders, "base"]:
        model = MODEL if name == "base" else f"{name}@1"
        served[name] = [(await engine.probe(model, prompt, tokens=1)).prompt_logprobs for prompt in prompts]
    passed = {(mine, theirs) for mine in known for theirs in served if certificate(known[mine], served[theirs]).passed}
    assert passed == {(name, name) for name in known}


async def test_an_adapter_of_the_head_is_certified_by_what_the_engine_samples(
    engine: Vllm, prober: WarmProber, tmp_path: Path
) -> None:
    """vLLM's logprobs of a prompt leave the head's update out; the tokens that it samples do not."""
    folder = head_adapter(tmp_path / "head", seed=5)
    known = await prober.probe(folder, digest="head")
    await engine.load("head@1", str(folder))
    of_prompts = [(await engine.probe("head@1", prompt, tokens=1)).prompt_logprobs for prompt in known.prompts]
    assert not certificate(known, of_prompts).passed
    assert (await certify(engine, "head@1", known)).passed
    assert not (await certify(engine, MODEL, known)).passed


def head_adapter(folder: Path, *, seed: int) -> Path:
    """LoRA on the output head only, strong enough to be seen in every answer."""
    shutil.copytree(tiny_adapter(folder.with_name("whole"), seed=seed, scale=0.1), folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config.update(target_modules=["lm_head"], r=4, lora_alpha=8)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    about = json.loads((Path(BASE) / "config.json").read_text())
    random = np.random.default_rng(seed)
    shapes = {"A": (4, about["hidden_size"]), "B": (about["vocab_size"], 4)}
    save_file(
        {
            f"base_model.model.lm_head.lora_{side}.weight": (0.1 * random.normal(size=shape)).astype(np.float32)
            for side, shape in shapes.items()
        },
        folder / "adapter_model.safetensors",
    )
    return folder
