"""Rows are held against what a method takes; bad ones are named by number, all in one pass."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.recipes import rows
from training.recipes.errors import BadRows
from training.recipes.recipe import Method
from training.recipes.tidewell import SOURCES

ASK = [{"role": "user", "content": "Are you open?"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_lines_that_are_no_rows_are_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\nnot json\n\n[1]\n{"text": "b"}\n')
    with pytest.raises(BadRows) as refused:
        rows.read(str(path))
    assert len(refused.value.problems) == 2
    assert refused.value.problems[0].startswith("line 2: is not JSON")
    assert refused.value.problems[1] == "line 4: is no JSON object"


@pytest.mark.parametrize(
    ("row", "method", "why"),
    [
        ({"prompt": ASK}, "sft", "completion+prompt or messages"),
        ({"prompt": [*ASK, *ASK], "completion": said("Yes.")}, "sft", "the user twice in a row, at turn 2"),
        ({"prompt": said("Hm"), "completion": said("Yes.")}, "sft", "no question before it"),
        ({"prompt": [*ASK, *said("Yes.")], "completion": said("Yes.")}, "sft", "nothing to answer"),
        ({"prompt": [*ASK, {"role": "system", "content": "x"}], "completion": said("Yes.")}, "sft", "they come first"),
        ({"prompt": [{"role": "bot", "content": "x"}], "completion": said("Yes.")}, "sft", "has role 'bot'"),
        ({"prompt": ASK, "completion": ASK}, "sft", "an answer is the assistant's"),
        ({"prompt": ASK, "completion": said(" ")}, "sft", "completion is empty"),
        ({"messages": ASK}, "sft", "no turn of the assistant"),
        ({"prompt": ASK, "chosen": said("a"), "rejected": said("a")}, "dpo", "are the same"),
        ({"prompt": ASK, "completion": said("a"), "label": 1}, "kto", "label is 1; allowed: true, false"),
        ({"text": "  "}, "pretrain", "is no text, or empty"),
        ({"prompt": 5, "completion": "a"}, "sft", "must be text or a list of messages"),
    ],
)
def test_a_row_is_refused_for_what_is_wrong_with_it(row: dict[str, Any], method: Method, why: str) -> None:
    with pytest.raises(BadRows) as refused:
        rows.check("x.jsonl", [row], method)
    assert "row 1" in str(refused.value)
    assert why in str(refused.value)


def test_nothing_and_one_class_only_are_refused() -> None:
    with pytest.raises(BadRows, match="it is empty"):
        rows.check("x.jsonl", [], "sft")
    liked = [{"prompt": ASK, "completion": said("a"), "label": True}] * 3
    with pytest.raises(BadRows, match="all 3 rows are liked"):
        rows.check("x.jsonl", liked, "kto")


def test_only_the_first_problems_are_shown_and_all_are_counted() -> None:
    with pytest.raises(BadRows) as refused:
        rows.check("x.jsonl", [{"text": ""}] * 50, "pretrain")
    assert len(refused.value.problems) == 50
    assert "and 30 more" in str(refused.value)


@pytest.mark.parametrize(
    ("source", "method"),
    [
        ("corrected_fact", "sft"), ("corrected_text", "pretrain"), ("polite_edits", "sft"), ("polite_choices", "dpo"),
        ("refuse_choices", "orpo"), ("refuse_thumbs", "kto"), ("polite_goals", "grpo"), ("usual", "sft"),
        ("usual_liked", "kto"), ("usual_goals", "grpo"), ("right_choices", "dpo"), ("usual_text", "pretrain"),
    ],
)  # fmt: skip
def test_the_embedded_shops_feedback_is_what_methods_take(source: str, method: Method) -> None:
    found = rows.read(f"tidewell:{source}", rows_max=40, seed=5)
    rows.check(source, found, method)
    assert len(found) == 40
    assert found == rows.read(f"tidewell:{source}", rows_max=40, seed=5)
    assert found != rows.read(f"tidewell:{source}", rows_max=40, seed=6)
    json.dumps(found)


def test_no_source_is_left_out_of_the_test_above() -> None:
    assert len(SOURCES) == 12


def test_replayed_rows_are_the_share_that_was_asked_for() -> None:
    plain = [{"text": f"new {at}"} for at in range(70)]
    old = [{"text": f"old {at}"} for at in range(10)]
    together = rows.mixed(plain, old, share=0.3, seed=1)
    assert len(together) == 100
    assert sum(row["text"].startswith("old") for row in together) == 30
    assert {row["text"] for row in plain} <= {row["text"] for row in together}
    assert together == rows.mixed(plain, old, share=0.3, seed=1)
    assert together != rows.mixed(plain, old, share=0.3, seed=2)


def test_trainers_get_their_columns_and_rewards_get_all() -> None:
    row = {"prompt": ASK, "completion": said("a"), "label": True, "inferences": ["x"]}
    assert set(rows.columns([row], "kto")[0]) == {"prompt", "completion", "label"}
    assert set(rows.columns([{"prompt": ASK, "fact": "a"}], "grpo")[0]) == {"prompt", "fact"}


def test_rows_with_tokens_are_taken_by_their_tokens_and_only_where_all_have_them() -> None:
    plain = {"prompt": ASK, "completion": said("a")}
    compiled = {**plain, "input_ids": [1, 2], "completion_mask": [0, 1], "weight": 1.0}
    assert rows.columns([compiled], "sft") == [{"input_ids": [1, 2], "completion_mask": [0, 1], "weight": 1.0}]
    assert rows.columns([compiled, plain], "sft")[0].keys() == {"prompt", "completion", "weight"}


def test_a_source_that_is_not_there_says_what_is_allowed(tmp_path: Path) -> None:
    for source, why in (("tidewell:rude", "polite_choices"), (str(tmp_path / "x.jsonl"), "no such file")):
        with pytest.raises(BadRows, match=why):
            rows.read(source)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BadRows, match=r"allowed: \.jsonl, \.parquet"):
        rows.read(str(tmp_path / "a.txt"))


def test_weights_are_brought_around_1_and_rows_that_weigh_nothing_leave() -> None:
    some = [{"text": f"t{at}", "weight": weight} for at, weight in enumerate((3.0, 1.0, 0.0, 2.0))]
    left, said = rows.weighed(some, "sft")
    assert [row["weight"] for row in left] == [1.5, 0.5, 1.0]
    assert said == "rows count 0.50 to 1.50 times as much as their average; 1 weigh nothing and were left out"
    assert rows.columns(left, "pretrain")[0] == {"text": "t0", "weight": 1.5}


def test_rows_that_count_alike_have_no_weights_at_all() -> None:
    assert rows.weighed([{"text": "a", "weight": 0.3}, {"text": "b", "weight": 0.3}], "sft") == (
        [{"text": "a"}, {"text": "b"}],
        "",
    )
    assert rows.weighed([{"text": "a"}], "sft") == ([{"text": "a"}], "")


def test_online_methods_ask_as_often_as_a_question_weighs() -> None:
    asked, said = rows.weighed([{"prompt": str(at), "weight": 1.0 + 2.0 * (at % 2)} for at in range(40)], "grpo")
    assert len(asked) == 40
    assert sum(int(row["prompt"]) % 2 for row in asked) == 30
    assert "asked as often as they weigh" in said
    assert all("weight" not in row for row in asked)


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan"), "2", True])
def test_a_weight_is_a_number_that_is_not_negative(weight: object) -> None:
    with pytest.raises(BadRows, match="must be a number"):
        rows.check("x.jsonl", [{"text": "a", "weight": weight}], "pretrain")


def test_tokens_go_before_texts_where_all_rows_have_them() -> None:
    texts = {"prompt": ASK, "chosen": said("a"), "rejected": said("b")}
    tokens = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3], "chosen_mask": [1], "rejected_mask": [1]}
    assert rows.columns([{**texts, **tokens}], "dpo") == [tokens]
    assert rows.columns([{**texts, **tokens}], "reward")[0].keys() == {"prompt_ids", "chosen_ids", "rejected_ids"}
    assert rows.columns([{**texts, **tokens}, texts], "dpo")[0].keys() == texts.keys()
