"""What a prober does for whoever registers adapters: the process with PEFT and the quarantine engine alike."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from adapters.checks.probe import Prober
from adapters.errors import ProbeAway, Rejected
from gateway.engines.quarantine import QuarantineProber
from gateway.engines.scripted import Options, running
from gateway.engines.vllm import Vllm
from tests.engines import MAX_MODEL_LEN, MODEL, RunningEngine, tiny_adapter
from training.base import PATH as BASE
from training.probe.client import WarmProber

pytestmark = pytest.mark.asyncio(loop_scope="module")
VOCABULARY = int(json.loads((BASE / "config.json").read_bytes())["vocab_size"])
DIGEST = "sha256:" + "ab" * 32


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        "scripted",
        pytest.param("peft", marks=pytest.mark.slow),
        pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.slow]),
    ],
)
async def prober(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prober]:
    """One for all cases: importing torch takes ten seconds, and serving many adapters is what a prober is for."""
    folder = tmp_path_factory.mktemp("prober")
    async with AsyncExitStack() as stack:
        made: Prober
        if request.param == "peft":
            pytest.importorskip("peft")
            made = WarmProber(BASE, folder / "probe.log", timeout_s=60)
        elif request.param == "vllm":
            real: RunningEngine = request.getfixturevalue("vllm_engine")
            made = QuarantineProber(Vllm("quarantine", real.url), vocabulary=VOCABULARY)
        else:
            options = Options(model=MODEL, max_model_len=MAX_MODEL_LEN)
            engine = await stack.enter_async_context(running(options, uds=folder / "s"))
            made = QuarantineProber(Vllm("quarantine", engine.url), vocabulary=VOCABULARY)
        yield made
        await made.close()


def flat(rows: tuple[tuple[float, ...], ...]) -> list[float]:
    return [value for row in rows for value in row]


async def test_an_adapter_that_works_leaves_numbers_that_say_so(prober: Prober, tmp_path: Path) -> None:
    found = await prober.probe(tiny_adapter(tmp_path / "a", scale=0.1), digest=DIGEST)
    assert found.effect > 0.1
    assert found.seconds > 0
    assert found.by
    assert any(len(prompt) > 64 for prompt in found.prompts)
    assert all(0 <= token < VOCABULARY for prompt in found.prompts for token in prompt)
    for rows in (found.logprobs, found.base_logprobs):
        assert [len(row) for row in rows] == [len(prompt) - 1 for prompt in found.prompts]
        assert all(math.isfinite(value) for row in rows for value in row)


async def test_the_same_adapter_gives_the_same_numbers_in_any_order(prober: Prober, tmp_path: Path) -> None:
    one, two = tiny_adapter(tmp_path / "a", scale=0.1), tiny_adapter(tmp_path / "b", seed=1, scale=0.1)
    first, _, again = await asyncio.gather(*(prober.probe(path, digest=DIGEST + path.name) for path in (one, two, one)))
    assert flat(again.logprobs) == pytest.approx(flat(first.logprobs), abs=1e-4)
    assert again.prompts == first.prompts


async def test_an_adapter_that_cannot_be_loaded_is_refused_or_reported_away(prober: Prober, tmp_path: Path) -> None:
    broken = tiny_adapter(tmp_path / "a")
    described = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps({**described, "r": 4096}))
    with pytest.raises(Rejected) as caught:
        await prober.probe(broken, digest=DIGEST)
    assert [reason.code for reason in caught.value.reasons] == ["probe_failed"]
    assert (await prober.probe(tiny_adapter(tmp_path / "b", scale=0.1), digest=DIGEST)).effect > 0


async def test_a_folder_that_is_not_there_says_nothing_about_the_adapter(prober: Prober, tmp_path: Path) -> None:
    with pytest.raises(ProbeAway):
        await prober.probe(tmp_path / "gone", digest=DIGEST)
