"""The bench's table is made of recipes that can be read; the worst seed counts; nothing is measured twice."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from adapters.checks.probe import Recorded
from training.base import PATH
from training.merge import HOW
from training.recipes.bench import runs as bench
from training.recipes.bench.cases import CASES, Case
from training.recipes.bench.exam import Marks, drop
from training.recipes.bench.runs import BASE, Parity, Result, Runs, kept, recipe
from training.recipes.bench.table import HEADS, markdown, row
from training.recipes.recipe import METHODS, Recipe, build, read
from training.recipes.sections import Adapter

TRAINED = [case for case in CASES if case.merged is None]


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_a_row_is_a_recipe_whose_seed_decides_its_rows(case: Case) -> None:
    written = yaml.safe_dump(recipe(case, 2), sort_keys=False)
    found = read(written)
    assert found == build(recipe(case, 2))
    assert (found.seed, found.data.seed) == (2, 31)
    assert found.data.train.startswith("tidewell:")


def test_no_method_kind_or_merge_is_left_out() -> None:
    recipes = [build(recipe(case, 0)) for case in TRAINED]
    assert {found.method for found in recipes} == set(METHODS)
    assert {found.adapter.kind for found in recipes} == set(get_args(Adapter.model_fields["kind"].annotation))
    for name in ("tuning", "quantization"):
        assert {getattr(found, name) for found in recipes} == set(get_args(Recipe.model_fields[name].annotation))
    assert {case.how for case in CASES if case.merged} == set(HOW)
    assert any(found.optim.lora_plus for found in recipes)
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_bounds_are_those_that_were_asked_for() -> None:
    least = {case.name: case.least for case in CASES}
    assert all(least[name] == 0.95 for name in least if name.startswith(("sft", "pretrain", "dpo", "grpo")))
    assert all(least[name] == 0.9 for name in ("kto", "orpo", "rloo", "ppo", "reward"))
    assert all(least[name] == 0.8 for name in least if name.startswith("merge-"))


def test_a_drop_is_counted_question_by_question() -> None:
    before = [True] * 390 + [False] * 10
    assert drop(before, before)[0] == 0
    low, high = drop(before, before)[1:]
    assert -0.01 < low < 0 < high < 0.01
    after = [False] * 16 + [True] * 374 + [True] * 4 + [False] * 6
    mean, low, high = drop(before, after)
    assert mean == pytest.approx((16 - 4) / 400)
    # 1.96 · √(16 + 4 + 1 − 12² / 400) / 400
    assert [mean - low, high - mean] == pytest.approx([0.02226, 0.02226], rel=1e-3)
    assert drop(after, before)[0] == -mean


def marked(**wrong: int) -> Marks:
    """A hundred marks of each kind; `wrong` of them are false."""
    kinds = ("facts", "faq", "corrected", "polite", "refused", "refused_wrongly")
    return Marks(**{kind: tuple(at >= wrong.get(kind, 0) for at in range(100)) for kind in kinds})


NEAR = Parity(passed=True, mean=0.001, p99=0.01, most=0.05, by="trainer")
BEFORE = marked(corrected=100, refused_wrongly=100)
SFT = next(case for case in CASES if case.name == "sft")


def test_over_all_seeds_the_worst_counts() -> None:
    fine = Result(cpu_s=20, marks=marked(refused_wrongly=100), parity=NEAR)
    made = row(SFT, [fine, fine, fine], BEFORE)
    assert made.missed == ()
    assert len(made.cells) == len(HEADS)
    assert made.cells[-1] == "ok"
    worse = {
        "corrected 0.940": Result(cpu_s=20, marks=marked(refused_wrongly=100, corrected=6), parity=NEAR),
        "facts drop 0.040": Result(cpu_s=20, marks=marked(refused_wrongly=100, facts=4), parity=NEAR),
        "FAQ drop 0.040": Result(cpu_s=20, marks=marked(refused_wrongly=100, faq=4), parity=NEAR),
        "wrong refusals 0.030": Result(cpu_s=20, marks=marked(refused_wrongly=97), parity=NEAR),
        "91 CPU s": Result(cpu_s=91, marks=marked(refused_wrongly=100), parity=NEAR),
        "parity 0.60": Result(
            cpu_s=20,
            marks=marked(refused_wrongly=100),
            parity=Parity(passed=False, mean=0, p99=0, most=0.6, by="probe"),
        ),
        "exit 1": Result(failed="exit 1"),
    }
    for missed, one in worse.items():
        assert row(SFT, [fine, one, fine], BEFORE).missed == (missed,)
    assert markdown([made]).count("\n") == 3


def test_a_reward_model_is_held_to_its_accuracy() -> None:
    case = next(case for case in CASES if case.habit == "accuracy")
    right = Result(cpu_s=9, accuracy=0.97)
    assert row(case, [right, right], BEFORE).missed == ()
    assert row(case, [right, Result(cpu_s=9, accuracy=0.89)], BEFORE).missed == ("accuracy 0.890",)
    assert row(case, [Result(cpu_s=9)], BEFORE).missed == ("accuracy 0.000",)


@dataclass
class Engine:
    """Answers every question in one way, and gives its rows for parity."""

    answer: str = "We take returns for 45 days."
    asked: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    async def said(self, model: str, chats: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        self.asked.append(model)
        return [self.answer for _ in chats]

    async def logprobs(self, model: str, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[-0.5] * (len(prompt) - 1) for prompt in prompts]

    @asynccontextmanager
    async def holding(self, folder: Path) -> AsyncIterator[str]:
        self.held.append(folder.parent.name)
        yield f"held-{folder.parent.name}"


class Prober:
    """Records the same of every adapter."""

    async def probe(self, folder: Path, *, digest: str, may_do_nothing: bool = False, gently: bool = False) -> Recorded:
        return RECORDED

    async def close(self) -> None: ...


RECORDED = Recorded(
    prompts=((1, 2, 3),), logprobs=((-0.5, -0.5),), base_logprobs=((-3.0, -3.0),), effect=2.5, seconds=1.0, by="peft"
)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Runs, Engine]:
    """A bench whose training takes no time."""

    def trained(case: Case, seed: int, folder: Path, runs: Runs) -> float:
        (folder / "adapter").mkdir(parents=True)
        if seed == 7:
            raise bench.RunFailed("exit 1: out of memory")
        if case.name == "dpo":
            (folder / "parity.json").write_text(json.dumps(RECORDED.document()))
        return 12.5

    monkeypatch.setattr(bench, "_trained", trained)
    engine = Engine()
    fields: dict[str, Any] = {"engine": engine, "prober": Prober(), "at_once": asyncio.Semaphore(2)}
    return Runs(out=tmp_path, count=8, env={}, **fields), engine


async def test_what_was_measured_is_kept_until_its_recipe_changes(
    made: tuple[Runs, Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, engine = made
    first, again = await asyncio.gather(runs.result("sft", 0), runs.result("sft", 0))
    assert engine.held == ["sft-0"]
    assert first == again == kept(tmp_path, "sft", 0, 8)
    assert first.cpu_s == 12.5
    assert first.marks is not None
    assert all(first.marks.corrected)
    assert first.parity is not None
    assert (first.parity.passed, first.parity.by) == (True, "probe")
    assert kept(tmp_path, "sft", 1, 8) is None
    assert kept(tmp_path, "sft", 0, 9) is None
    other = Case(name="sft", habit="corrected", least=0.95, fields={**SFT.fields, "optim": {"steps": 61}})
    monkeypatch.setattr(bench, "CASES", (other,))
    assert kept(tmp_path, "sft", 0, 8) is None


async def test_the_trainers_own_record_is_preferred_and_failures_are_not_kept(made: tuple[Runs, Engine]) -> None:
    runs, engine = made
    found = await runs.result("dpo", 0)
    assert found.parity is not None
    assert found.parity.by == "trainer"
    failed = await runs.result("sft", 7)
    assert failed.failed == "exit 1: out of memory"
    assert kept(runs.out, "sft", 7, 8) is None
    merged = next(case for case in CASES if case.merged and "sft" in case.merged)
    assert (await runs.result(merged.name, 7)).failed.startswith("sft: exit 1")
    base = await runs.result(BASE, 0)
    assert engine.asked[-1] == PATH.name
    assert base.parity is None
