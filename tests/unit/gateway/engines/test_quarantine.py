"""The quarantine engine when it is away, dies, hangs, is poisoned, or comes back as another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.errors import ProbeAway, Rejected
from gateway.engines.quarantine import QuarantineProber
from gateway.engines.scripted import Options, Scripted, running
from gateway.engines.vllm import Vllm
from tests.engines import tiny_adapter

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
NAME, OTHER_NAME = "probe@" + "ab" * 8, "probe@" + "cd" * 8


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with running(Options(model="base", max_model_len=1024), uds=tmp_path / "s") as scripted:
        yield scripted


@pytest.fixture
async def prober(engine: Scripted) -> AsyncIterator[QuarantineProber]:
    made = QuarantineProber(Vllm("quarantine", engine.url), vocabulary=1000, timeout_s=5)
    yield made
    await made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_adapter(tmp_path / "a")


def codes(error: Rejected) -> list[str]:
    return [reason.code for reason in error.reasons]


async def test_the_engine_forgets_the_adapter_again(engine: Scripted, prober: QuarantineProber, folder: Path) -> None:
    found = await prober.probe(folder, digest=DIGEST)
    assert found.by == f"quarantine {engine.url}"
    assert engine.engine.adapters == {}


async def test_an_engine_that_is_away_says_nothing_about_the_adapter(
    engine: Scripted, prober: QuarantineProber, folder: Path
) -> None:
    engine.close()
    with pytest.raises(ProbeAway, match="does not answer"):
        await prober.probe(folder, digest=DIGEST)


async def test_an_engine_that_dies_of_the_adapter_is_the_adapters_fault(
    engine: Scripted, prober: QuarantineProber, folder: Path
) -> None:
    asked = (await prober.probe(folder, digest=OTHER)).prompts
    engine.engine.script.next = [*[""] * len(asked), "", "[[die:0]]"]
    with pytest.raises(Rejected, match="died of it") as caught:
        await prober.probe(folder, digest=DIGEST)
    assert codes(caught.value) == ["probe_failed"]


async def test_a_connection_that_breaks_while_the_engine_lives_is_tried_again(
    engine: Scripted, prober: QuarantineProber, folder: Path
) -> None:
    asked = (await prober.probe(folder, digest=OTHER)).prompts
    engine.engine.script.next = [*[""] * len(asked), "[[cut:0]]", "[[cut:0]]"]
    with pytest.raises(ProbeAway, match="could not take it"):
        await prober.probe(folder, digest=DIGEST)
    assert (await prober.probe(folder, digest=DIGEST)).effect > 0


async def test_an_adapter_that_the_engine_refuses_is_refused(
    engine: Scripted, prober: QuarantineProber, folder: Path
) -> None:
    engine.engine.script.load_error = "LoRA weights are unexpected."
    with pytest.raises(Rejected, match="refused it") as caught:
        await prober.probe(folder, digest=DIGEST)
    assert codes(caught.value) == ["probe_failed"]


@pytest.mark.parametrize("tripwire", [True, False])
async def test_numbers_that_are_none_are_refused(
    engine: Scripted, prober: QuarantineProber, folder: Path, tripwire: bool
) -> None:
    engine.engine.script.tripwire = tripwire
    engine.engine.script.nan = frozenset({NAME})
    with pytest.raises(Rejected) as caught:
        await prober.probe(folder, digest=DIGEST)
    assert codes(caught.value) == ["not_finite"]
    assert engine.engine.adapters == {}


async def test_after_one_poisonous_adapter_the_next_cannot_be_judged_by_its_nan(
    engine: Scripted, prober: QuarantineProber, folder: Path
) -> None:
    engine.engine.script.tripwire = False
    engine.engine.script.nan = frozenset({NAME, OTHER_NAME})
    with pytest.raises(Rejected):
        await prober.probe(folder, digest=DIGEST)
    with pytest.raises(ProbeAway, match="restart the quarantine engine"):
        await prober.probe(folder, digest=OTHER)
    with pytest.raises(Rejected):
        await prober.probe(folder, digest=DIGEST)
    engine.engine._started_at += 60  # what a restart looks like
    with pytest.raises(Rejected) as caught:
        await prober.probe(folder, digest=OTHER)
    assert codes(caught.value) == ["not_finite"]


async def test_an_engine_whose_base_is_poisoned_is_asked_nothing_more(
    engine: Scripted, prober: QuarantineProber, folder: Path
) -> None:
    engine.engine.script.tripwire = False
    await prober.probe(folder, digest=DIGEST)
    engine.engine.script.nan = frozenset({"base"})
    with pytest.raises(ProbeAway, match="Restart it"):
        await prober.probe(folder, digest=DIGEST)


async def test_an_engine_that_hangs_on_the_adapter_is_given_up_at_the_deadline(engine: Scripted, folder: Path) -> None:
    prober = QuarantineProber(Vllm("quarantine", engine.url), vocabulary=1000, timeout_s=0.5)
    asked = (await prober.probe(folder, digest=OTHER)).prompts
    engine.engine.script.next = [*[""] * len(asked), "[[hang:0]]"]
    with pytest.raises(Rejected, match="still running"):
        await prober.probe(folder, digest=DIGEST)
    await prober.close()


async def test_a_real_tokenizers_turns_come_with_the_bases_answers(folder: Path, engine: Scripted) -> None:
    class Speaking(Vllm):
        async def tokenize(self, model: str, turn: str) -> tuple[int, ...]:
            return (7, len(turn), 9)

    prober = QuarantineProber(Speaking("quarantine", engine.url), vocabulary=1000)
    spoken = (await prober.probe(folder, digest=DIGEST)).prompts
    assert (7, 18, 9) in spoken
    await prober.close()
