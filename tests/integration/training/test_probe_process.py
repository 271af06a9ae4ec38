"""The warm process itself: what kills it, what it survives, and that its numbers are PEFT's."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import load_file, save_file

from adapters.checks.parity import certificate, labels
from adapters.errors import ProbeAway, Rejected
from tests.engines import tiny_adapter
from training.base import PATH as BASE
from training.probe.client import WarmProber

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
pytest.importorskip("peft")
DIGEST = "sha256:" + "ab" * 32
WEIGHTS = "adapter_model.safetensors"
SECRET = "secret-of-ours"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prober(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WarmProber]:
    """One for all cases that do not ask for bounds of their own: each start imports torch for ten seconds."""
    made = WarmProber(BASE, tmp_path_factory.mktemp("prober") / "logs" / "probe.log", timeout_s=60)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRAFTLINE_PSEUDONYM_KEY", SECRET)
        yield made
        await made.close()


def changed(folder: Path, factor: float, *, value: float | None = None) -> Path:
    tensors = load_file(folder / WEIGHTS)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensors[name] = np.ascontiguousarray(tensor * np.float32(factor))
            if value is not None:
                tensors[name][0, 0] = value
    save_file(tensors, folder / WEIGHTS)
    return folder


def pid(prober: WarmProber) -> int:
    assert prober._running is not None
    return prober._running.process.pid


def environment(prober: WarmProber) -> bytes:
    return Path(f"/proc/{pid(prober)}/environ").read_bytes()


async def codes(prober: WarmProber, folder: Path) -> list[str]:
    with pytest.raises(Rejected) as caught:
        await prober.probe(folder, digest=DIGEST)
    return [reason.code for reason in caught.value.reasons]


async def test_every_kind_of_bad_adapter_is_refused_and_the_process_lives_on(
    prober: WarmProber, tmp_path: Path
) -> None:
    good = tiny_adapter(tmp_path / "good", scale=0.1)
    first = await prober.probe(good, digest=DIGEST)
    lives = pid(prober)
    assert await codes(prober, changed(tiny_adapter(tmp_path / "nan"), 1.0, value=float("nan"))) == ["not_finite"]
    assert await codes(prober, changed(tiny_adapter(tmp_path / "large"), 1e30)) == ["not_finite"]
    assert await codes(prober, changed(tiny_adapter(tmp_path / "nothing"), 0.0)) == ["no_effect"]
    assert await codes(prober, changed(tiny_adapter(tmp_path / "hardly"), 1e-12)) == ["no_effect"]
    forced = await prober.probe(tmp_path / "nothing", digest="sha256:" + "ab" * 32, may_do_nothing=True)
    assert forced.effect == 0
    cut = tiny_adapter(tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-100])
    assert await codes(prober, cut) == ["probe_failed"]
    pickle = tiny_adapter(tmp_path / "pickle")
    (pickle / WEIGHTS).rename(pickle / "adapter_model.bin")
    assert await codes(prober, pickle) == ["probe_failed"]
    (cut / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 1 << 30, "target_modules": ["q_proj"]})
    )
    assert await codes(prober, cut) == ["probe_failed"]
    again = await prober.probe(good, digest=DIGEST)
    assert again.logprobs == first.logprobs
    assert pid(prober) == lives


async def test_an_adapter_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    prober = WarmProber(BASE, tmp_path / "probe.log", timeout_s=60, memory_gib=0.01)
    try:
        with pytest.raises(Rejected, match="memory"):
            await prober.probe(tiny_adapter(tmp_path / "a", rank=2048), digest=DIGEST)
    finally:
        await prober.close()


async def test_a_process_that_was_killed_is_started_again_and_its_question_is_asked_later(
    prober: WarmProber, tmp_path: Path
) -> None:
    folder = tiny_adapter(tmp_path / "a", scale=0.1)
    first = await prober.probe(folder, digest=DIGEST)
    os.kill(pid(prober), signal.SIGKILL)
    with pytest.raises(ProbeAway, match="went away"):
        await prober.probe(folder, digest=DIGEST)
    assert (await prober.probe(folder, digest=DIGEST)).logprobs == first.logprobs
    with pytest.raises(TimeoutError):  # a caller that gives up must not leave its answer to the next
        await asyncio.wait_for(prober.probe(folder, digest=DIGEST), 0.005)
    other = await prober.probe(tiny_adapter(tmp_path / "b", seed=1, scale=0.1), digest=DIGEST)
    assert other.logprobs != first.logprobs


async def test_an_idle_process_gives_its_memory_back_and_comes_when_called(tmp_path: Path) -> None:
    prober = WarmProber(BASE, tmp_path / "probe.log", timeout_s=60, idle_s=0.2)
    folder = tiny_adapter(tmp_path / "a", scale=0.1)
    try:
        await prober.probe(folder, digest=DIGEST)
        assert prober._running is not None
        assert await asyncio.wait_for(prober._running.process.wait(), 30) == 0
        assert (await prober.probe(folder, digest=DIGEST)).effect > 0
    finally:
        await prober.close()


async def test_a_base_that_cannot_be_loaded_is_nobodys_fault_but_ours(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"no")
    prober = WarmProber(tmp_path / "base", tmp_path / "probe.log")
    with pytest.raises(ProbeAway, match=r"did not get ready.*cannot be loaded as a base"):
        await prober.probe(tiny_adapter(tmp_path / "a"), digest=DIGEST)
    await prober.close()


async def test_no_secret_of_ours_reaches_the_process(prober: WarmProber, tmp_path: Path) -> None:
    assert os.environ["GRAFTLINE_PSEUDONYM_KEY"] == SECRET  # we have it, since before the process began
    await prober.probe(tiny_adapter(tmp_path / "a", scale=0.1), digest=DIGEST)
    assert SECRET.encode() not in environment(prober)


async def test_its_numbers_are_pefts_and_a_change_of_strength_is_seen(prober: WarmProber, tmp_path: Path) -> None:
    import torch

    from training.probe import model as models

    torch.set_num_threads(1)
    folder = tiny_adapter(tmp_path / "a", scale=0.1)
    found = await prober.probe(folder, digest=DIGEST)
    model, _ = models.load(BASE)
    adapted = models.adapted(model, folder)
    assert certificate(found, models.rows(adapted, found.prompts)).most < 1e-4
    assert certificate(found, [models.rows(adapted, [prompt])[0] for prompt in found.prompts]).most < 1e-4
    assert not certificate(found, models.rows(adapted.unload(), found.prompts)).passed
    assert labels(found) == ()
    faint = await prober.probe(changed(folder, 1e-3), digest=DIGEST)
    assert labels(faint) == ("weak_effect",)
