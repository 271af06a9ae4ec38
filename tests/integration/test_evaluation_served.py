"""An evaluation of real vLLM: what it says of likelihoods is what the model says, and a broken adapter is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engines import MODEL, RunningEngine, tiny_adapter
from training.base import PATH as BASE
from training.evaluation.progress import Heard
from training.evaluation.run import evaluate
from training.evaluation.suites.standard import SHOP
from training.evaluation.values import Asked, Endpoint, Evaluation, Models, Plan, load

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

LOUD = "loud@1"


@pytest.fixture
def loud(vllm_engine: RunningEngine, tmp_path: Path) -> Iterator[str]:
    """A random adapter, loaded and forgotten again."""
    folder = tiny_adapter(tmp_path / "loud", seed=7, scale=0.2)
    transport = httpx.HTTPTransport(uds=vllm_engine.url.removeprefix("unix:"))
    with httpx.Client(base_url="http://engine", transport=transport, timeout=60, trust_env=False) as client:
        body = {"lora_name": LOUD, "lora_path": str(folder)}
        client.post("/v1/load_lora_adapter", json=body).raise_for_status()
        yield LOUD
        client.post("/v1/unload_lora_adapter", json={"lora_name": LOUD}).raise_for_status()


def plan(engine: RunningEngine, *suites: Asked, candidate: str = MODEL) -> Plan:
    return Plan(
        engine=Endpoint(url=engine.url), models=Models(candidate=candidate, base=MODEL), suites=suites, tokens_max=48
    )


def value(found: Evaluation, name: str) -> float:
    measured = found.find(name)
    assert measured is not None, name
    return measured.value


def test_a_broken_adapter_is_seen_in_every_usual_suite(vllm_engine: RunningEngine, loud: str, tmp_path: Path) -> None:
    held = Asked(name="held", source="tidewell:usual", rows_max=60)
    suites = [each.model_copy(update={"rows_max": 60}) for each in SHOP]
    asked, out = plan(vllm_engine, held, *suites, candidate=loud), tmp_path / "evaluation.json"
    command = [sys.executable, "-m", "training.evaluation", "-", "--out", str(out)]
    done = subprocess.run(command, input=asked.dump(), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "finished"
    found = load(out.read_bytes())
    for name in ("held.loss", "facts.right", "faq.right"):
        measured = found.find(name)
        assert measured is not None
        assert measured.versus_base is not None
        assert measured.versus_base.low > 0.5 if measured.better == "lower" else measured.versus_base.high < -0.5
    before = found.find("facts.right", "base")
    assert before is not None
    assert before.value >= 0.95
    assert {each.role for each in found.measured} == {"held", "forgetting", "safety", "over_refusal", "stereotype"}
    # A second run of the same plan finds what is there.
    again = subprocess.run(command, input=asked.dump(), capture_output=True, check=True)
    assert len(again.stdout.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
async def test_the_loss_is_the_models_own(vllm_engine: RunningEngine) -> None:
    torch = pytest.importorskip("torch")
    from training.base.evaluate import load as load_model

    asked = plan(vllm_engine, Asked(name="held", source="tidewell:usual", rows_max=40, measures=("loss",)))
    found, answered = await evaluate(asked, Heard())
    model, tokenizer = load_model(BASE)
    total, tokens = 0.0, 0
    for row in answered[0].rows:
        assert row.scored is not None
        said = [{"role": each.role, "content": each.content} for each in row.prompt]
        whole = [*said, {"role": "assistant", "content": row.answer}]
        assert tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False) == list(row.scored.ids)
        with torch.no_grad():
            logits = model(torch.tensor([row.scored.ids])).logits[0].log_softmax(-1)
        counted = [at for at, on in enumerate(row.scored.mask) if on]
        total -= sum(float(logits[at - 1, row.scored.ids[at]]) for at in counted)
        tokens += len(counted)
    assert value(found, "held.loss") == pytest.approx(total / tokens, abs=0.02)
