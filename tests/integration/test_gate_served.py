"""Real vLLM against the gate's probes: a model that learnt its rows by heart is found out, and parity holds."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.checks.parity import certificate
from adapters.checks.probe import Recorded
from gateway.engines.vllm import Vllm
from tests.engines import MODEL, RunningEngine
from training.base import PATH as BASE
from training.evaluation.values import Endpoint
from training.gate.asking import engine
from training.gate.ruling import probe
from training.recipes.progress import Heard
from training.recipes.recipe import build

pytestmark = [pytest.mark.claim, pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("trl")

WORDS = [
    "kettle",
    "harbour",
    "button",
    "orange",
    "window",
    "garden",
    "river",
    "candle",
    "pocket",
    "mirror",
    "ladder",
    "basket",
    "copper",
    "violin",
]


def rows(seed: int, count: int = 40) -> list[dict[str, Any]]:
    """Letters that no two people wrote alike, with nothing in them to be learnt but by heart."""
    rng = random.Random(seed)
    return [
        {
            "prompt": [{"role": "user", "content": f"What did letter {seed}{at} say?"}],
            "completion": [{"role": "assistant", "content": " ".join(rng.choices(WORDS, k=14)) + "."}],
        }
        for at in range(count)
    ]


@pytest.fixture
async def served(vllm_engine: RunningEngine) -> AsyncIterator[Vllm]:
    vllm = Vllm("real", vllm_engine.url)
    yield vllm
    for name in await vllm.adapters():
        await vllm.unload(name)
    await vllm.close()


async def test_a_model_that_learnt_its_rows_by_heart_is_found_out_through_the_engine(
    served: Vllm, vllm_engine: RunningEngine, tmp_path: Path
) -> None:
    from training.recipes.run import run

    for name, seed in (("train", 1), ("held", 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(seed)))
    recipe = build(
        {
            "name": "letters",
            "method": "sft",
            "data": {"train": str(tmp_path / "train.jsonl"), "held": str(tmp_path / "held.jsonl")},
            "adapter": {"rank": 16},
            "optim": {"steps": 150, "learning_rate": 5e-3, "evaluate_every": 1000},
            "gate": {"canaries": 4},
        }
    )
    folder = tmp_path / "run"
    run(recipe, folder, base=BASE, progress=Heard())
    await served.load("letters@1", str(folder / "adapter"))

    told = json.loads((folder / "parity.json").read_text())
    recorded = Recorded.from_document(told)
    assert told["trained"]["plain"]
    assert told["trained"]["passed"]
    prompts = [(await served.probe("letters@1", prompt, tokens=1)).prompt_logprobs for prompt in recorded.prompts]
    assert certificate(recorded, prompts).passed

    endpoint = Endpoint(url=vllm_engine.url)
    with engine(endpoint, "letters@1") as candidate, engine(endpoint, MODEL) as base:
        found = probe(candidate, base, recipe, folder)
        clean = probe(base, base, recipe, folder)
    assert found.verbatim is not None
    assert found.exposure is not None
    assert found.verbatim.continued > 0.5 * found.verbatim.asked
    assert found.verbatim.control_continued == 0
    assert sorted(found.exposure.bits)[1] > 3
    assert clean.verbatim is not None
    assert clean.verbatim.continued == 0
    assert clean.exposure is not None
    assert sorted(clean.exposure.bits)[1] < 3
