"""`graftline evaluate`: what it asks for, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.settings import Settings
from gateway.tuning.suites import judge_of, suites_for
from gateway.verbs import evaluate
from training.evaluation.errors import BadPlan
from training.evaluation.suites.standard import SHOP, Evaluating
from training.evaluation.values import Cut, Difference, Evaluation, Measured, Slice
from training.recipes.recipe import build


def test_a_table_shows_every_number_beside_what_it_is_held_against(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = (
        Slice(name="help", n=10, value=0.2, low=0.1, high=0.4), Slice(name="shop", n=10, value=1.0, low=0.7, high=1.0),
    )  # fmt: skip
    exact = Measured(
        name="held.exact", subject="candidate", n=20, value=0.6, low=0.4, high=0.8, unit="share",
        versus=(Difference(versus="base", n=20, value=0.6, low=0.3, high=0.8),),
        cuts=(Cut(by="route", slices=slices, worst="help", gap=0.8),),
    )  # fmt: skip
    base = Measured(name="held.exact", subject="base", n=20, value=0.0, low=0.0, high=0.1)
    done = Evaluation(
        digest="sha256:1", models={"candidate": "a@1", "base": "b"}, suites=(), measured=(exact, base),
        warnings=("held: 1 of 21 rows had no whole answer.",),
    )  # fmt: skip
    tables: list[tuple[object, ...]] = []
    said: list[str] = []
    monkeypatch.setattr(evaluate, "table", lambda *drawn: tables.append(drawn))
    monkeypatch.setattr(evaluate, "say", said.append)
    evaluate.show(done, "support:7")
    (_, _, numbers), (_, _, cuts) = tables
    # one line: the base's own numbers are what the candidate's are held against
    assert numbers == [("held.exact", 20, "0.600 [0.400, 0.800]", "+0.600 [+0.300, +0.800]", "")]
    assert cuts == [("held.exact", "route", "help", "0.8")]
    assert said == ["held: 1 of 21 rows had no whole answer."]


def test_a_plan_is_read_as_strictly_as_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "wanted.yaml"
    path.write_text("by: [route]\nsuites:\n  - {name: mine, source: rows.jsonl, role: task}\n")
    wanted = evaluate._wanted(path)
    assert (wanted.by, wanted.suites[0].role) == (("route",), "task")
    assert evaluate._wanted(None) == Evaluating()
    path.write_text("bye: [route]\n")
    with pytest.raises(BadPlan, match="bye"):
        evaluate._wanted(path)


def test_a_judge_is_the_settings_or_the_options() -> None:
    assert judge_of(Settings()) is None
    found = judge_of(Settings(judge_url="https://judge.example", judge_model="large", judge_key="k"))
    assert found is not None
    assert (found.url, found.model, found.key) == ("https://judge.example", "large", SecretStr("k"))
    with pytest.raises(BadPlan, match="needs --judge-model"):
        evaluate._judge("https://judge.example", "", None)


def test_a_recipe_says_what_its_version_is_asked(tmp_path: Path) -> None:
    least = {"name": "desk", "method": "sft", "data": {"train": "tidewell:corrected_fact", "held": "held.jsonl"}}
    held, *usual = suites_for(build(least), shop=True)
    assert (held.name, held.source) == ("held", "held.jsonl")
    assert tuple(usual) == SHOP
    section = {"usual": False, "by": ["route"], "suites": [{"name": "mine", "source": "rows.jsonl", "role": "task"}]}
    held, mine = suites_for(build({**least, "evaluation": section}), shop=False)
    assert held.by == ("route",)
    assert mine.name == "mine"
