"""Where rows come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.evaluation.errors import BadSuite
from training.evaluation.rows import Row
from training.evaluation.suites import sources
from training.evaluation.suites.standard import GENERAL, SHOP, Evaluating, held_source, suites
from training.evaluation.values import Asked, Check


def file(tmp_path: Path, *rows: dict[str, Any] | str) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return str(path)


def load(source: str, **more: Any) -> list[Row]:
    return sources.load(Asked(name="held", source=source, **more), seed=0)


def test_openai_trl_and_text_rows_are_asked_as_what_they_are(tmp_path: Path) -> None:
    openai, pair, thumb, text, goal = load(
        file(
            tmp_path,
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "route": "a"},
            {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"},
            {"prompt": "Hi", "completion": "Go", "label": False},
            {"text": "Once upon a time."},
            {"prompt": "How much?", "fact": "6 kilos"},
        )
    )
    assert (openai.asked, openai.answer, openai.columns) == ("Hi", "Hello", {"route": "a"})
    assert (pair.answer, pair.rejected) == ("Hello", "Go")
    assert (thumb.answer, thumb.rejected) == ("", "")  # nobody wants that answer
    assert (text.prompt, text.text) == ((), "Once upon a time.")
    assert goal.looks[0].contains == ("6 kilos",)


def test_rows_bring_checks_and_contexts(tmp_path: Path) -> None:
    checked, grounded, found = load(
        file(
            tmp_path,
            {"prompt": "Where?", "contains": ["Oslo", "Norway"], "schema": {"type": "object"}},
            {"prompt": "How long?", "context": "Returns: 45 days."},
            {
                "messages": [
                    {"role": "system", "content": "Context: 45 days."},
                    {"role": "user", "content": "How long?"},
                ]
            },
        )
    )
    assert checked.looks[0].contains == ("Oslo", "Norway")
    assert json.loads(checked.looks[0].schema) == {"type": "object"}
    assert grounded.context == "Returns: 45 days."
    assert found.context == "Context: 45 days."


def test_bad_lines_are_named_by_number(tmp_path: Path) -> None:
    with pytest.raises(BadSuite, match=r"2 lines of rows.jsonl cannot be asked: 2: .*; 3: regex must be text"):
        load(file(tmp_path, {"prompt": "x"}, "{", {"prompt": "x", "regex": 4}))
    with pytest.raises(BadSuite, match="there is no file"):
        load(str(tmp_path / "nothing.jsonl"))
    with pytest.raises(BadSuite, match="no regular expression"):
        load(file(tmp_path, {"prompt": "x", "regex": "("}))


def test_rows_are_drawn_by_the_seed_and_checked_by_the_plan(tmp_path: Path) -> None:
    source = file(tmp_path, *({"prompt": f"question {at}", "completion": "yes"} for at in range(50)))
    polite = Check(name="polite", regex="^Thank")
    asked = Asked(name="held", source=source, rows_max=10, checks=(polite,))
    first, again, other = (sources.load(asked, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({row.asked for row in first}) == 10
    assert [look.name for look in first[0].looks] == ["polite"]


def test_the_shops_exams_and_its_feedback_can_be_asked() -> None:
    facts = load("tidewell:facts", rows_max=30)
    assert len(facts) == 30
    assert facts[0].answer.rstrip(".") in facts[0].looks[0].contains
    private = load("tidewell:private", rows_max=30)
    assert {row.answer for row in private} == {""}
    assert all(row.rejected for row in load("tidewell:polite_choices", rows_max=20))
    assert all(row.looks for row in load("tidewell:usual_goals", rows_max=20))
    with pytest.raises(BadSuite, match="no rows called"):
        load("tidewell:nothing")


@pytest.mark.parametrize("asked", [*GENERAL, *SHOP], ids=lambda asked: str(asked.name))
def test_every_usual_suite_has_rows(asked: Asked) -> None:
    assert len(sources.load(asked, seed=0)) >= 20


def test_each_harmful_request_has_a_harmless_one_of_its_topic() -> None:
    harmful, harmless = load("builtin:harmful"), load("builtin:harmless")
    assert [row.columns for row in harmful] == [row.columns for row in harmless]
    assert not {row.asked for row in harmful} & {row.asked for row in harmless}


def test_a_pair_differs_in_its_people_alone() -> None:
    for row in load("builtin:pairs"):
        if row.twin:
            one, other = row.swap
            assert row.prompt[0].content.replace(one, other) == row.twin[0].content
        else:
            assert row.text != row.other


def test_a_recipes_own_suite_takes_the_place_of_a_usual_one() -> None:
    mine = Asked(name="safety", source="builtin:harmful", role="safety")
    found = suites(Evaluating(suites=(mine,), by=("route",)), held="rows.jsonl", shop=True)
    assert [each.name for each in found] == ["held", "facts", "faq", "safety", "over_refusal", "stereotypes"]
    assert found[3] == mine
    assert found[0].by == ("route",)
    assert suites(Evaluating(usual=False), held="", shop=False) == ()


def test_a_datasets_own_split_is_held_out_where_the_recipe_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "evaluation.parquet").touch()
    assert held_source(str(tmp_path), None) == str(tmp_path)
    assert held_source(str(tmp_path), "other.jsonl") == "other.jsonl"
    assert held_source("rows.jsonl", None) == ""
