"""Files become candidates in one pass, and every bad line is named by its number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.data.made import Letters
from training.data.build import Place
from training.data.errors import BadFile
from training.data.imports.files import BadLine, lines
from training.data.imports.formats import parsed
from training.data.imports.read import Walk, check, import_file
from training.data.rules import Rules
from training.data.values import Message

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
ASKED = (Message(role="user", content="Hi"),)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT]},
        {"messages": [USER, ASSISTANT, USER, {**ASSISTANT, "weight": 0}]},
        {"prompt": "Hi", "completion": "Hello."},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"instruction": "Hi", "input": "", "output": "Hello."},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    ],
)
def test_every_form_of_an_sft_row_is_the_same_candidate(row: dict[str, Any]) -> None:
    found = parsed(row)
    assert (found.kind, found.prompt, found.answer) == ("sft", ASKED, "Hello.")


@pytest.mark.parametrize(
    "row",
    [
        {
            "input": {"messages": [USER]},
            "preferred_output": [ASSISTANT],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        },
        {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No."}]},
    ],
)
def test_every_form_of_a_pair_is_the_same_candidate(row: dict[str, Any]) -> None:
    found = parsed(row, "reward")
    assert (found.kind, found.prompt, found.answer, found.rejected) == ("reward", ASKED, "Hello.", "No.")


@pytest.mark.parametrize(("label", "liked"), [(True, True), ("false", False), ("up", True), (0, False)])
def test_a_label_makes_a_row_for_kto(label: Any, liked: bool) -> None:
    found = parsed({"prompt": "Hi", "completion": "Hello.", "label": label})
    assert (found.kind, found.label) == ("kto", liked)


def test_prompts_and_texts_have_kinds_of_their_own() -> None:
    assert parsed({"prompt": "Hi", "reference": "Hello."}).kind == "rl"
    assert parsed({"messages": [USER], "reference_answer": "Hello."}).answer == "Hello."
    assert parsed({"messages": [USER, ASSISTANT]}, "rl").answer == "Hello."
    assert parsed({"text": "Once."}).kind == "text"


def test_assistant_turns_of_weight_one_are_learnt_from_too() -> None:
    found = parsed({"messages": [USER, {**ASSISTANT, "weight": 0}, USER, ASSISTANT, USER, ASSISTANT]})
    assert [each.trained for each in found.prompt] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"foo": 1}, "no known format"),
        ({"messages": "Hi"}, "list of messages"),
        ({"messages": [ASSISTANT, USER, ASSISTANT]}, "roles are out of order"),
        ({"messages": [USER, {**ASSISTANT, "weight": 2}]}, "weight must be 0 or 1"),
        ({"messages": [USER, {**ASSISTANT, "weight": 0}]}, "no turn of the assistant"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "no text"),
        ({"messages": [USER, ASSISTANT], "tools": [{}]}, "tool calls"),
        ({"input": "Hi", "preferred_output": [ASSISTANT], "non_preferred_output": [ASSISTANT]}, "must hold messages"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a "}, "the same"),
        ({"chosen": [USER, ASSISTANT, USER], "rejected": [ASSISTANT]}, "more than their last turn"),
        ({"prompt": "Hi", "completion": 5}, "completion must be text"),
        ({"prompt": "Hi", "completion": "a", "label": "maybe"}, "label must be"),
        ({"instruction": "Hi", "output": 1}, "must be text"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "alien"),
        ({"text": " "}, "no text"),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: dict[str, Any], why: str) -> None:
    with pytest.raises(BadLine, match=why):
        parsed(row)


def test_a_row_of_another_kind_is_refused() -> None:
    with pytest.raises(BadLine, match="a row for sft, in a dataset for kto"):
        parsed({"messages": [USER, ASSISTANT]}, "kto")


def numbers(path: Path, kind: Any) -> list[tuple[int, bool]]:
    return [(number, not isinstance(fields, BadLine)) for number, fields in lines(path, kind)]


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\n\n[1]\n{"b"\n{"c":2}')
    assert numbers(path, "jsonl") == [(1, True), (3, False), (4, False), (5, True)]
    path.write_bytes(b'prompt,completion\n"two\nlines",x\na\n\xff,b\nc,d\n')
    assert numbers(path, "csv") == [(2, True), (4, False), (5, False), (6, True)]
    path.write_text("one\none\n\n\ntwo\n")
    assert [(number, fields) for number, fields in lines(path, "text")] == [
        (1, {"text": "one\none"}),
        (5, {"text": "two"}),
    ]
    path.write_text('[{"a":1}, 2]')
    assert numbers(path, "json") == [(1, True), (2, False)]


@pytest.mark.parametrize(("name", "body", "why"), [("a.json", "{", "not JSON"), ("a.xls", "", "ends with none of")])
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path: Path, name: str, body: str, why: str) -> None:
    (tmp_path / name).write_text(body)
    with pytest.raises(BadFile, match=why):
        check(tmp_path / name)


def written(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in rows))
    return path


def test_every_bad_line_is_named_in_one_pass(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl",
        [{"prompt": "a", "completion": "b"}, "{", {"text": "x"}, {"prompt": "c", "completion": ""}],
    )
    found = check(path)
    assert (found.kind, found.rows, found.bad) == ("sft", 1, 3)
    assert [number for number, _ in found.problems] == [2, 3, 4]
    with pytest.raises(BadFile, match=r"(?s)a.jsonl has 3 problems.*line 2.*line 3.*line 4"):
        import_file(path, Rules(kind="sft"), Place(root=tmp_path / "datasets", template=Letters()))


def test_thousands_of_bad_lines_are_counted_and_few_are_kept(tmp_path: Path) -> None:
    walk = Walk(written(tmp_path / "a.jsonl", ["{"] * 3000), None)
    assert not list(walk)
    assert (walk.bad, len(walk.problems)) == (3000, 1000)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(BadFile, match="empty"):
        check(tmp_path / "a.jsonl")


@pytest.mark.slow
def test_a_file_becomes_a_dataset_and_its_parquet_the_same_rows_again(tmp_path: Path) -> None:
    parquet = pytest.importorskip("training.data.parquet")
    pytest.importorskip("pyarrow")
    rows = [{"prompt": f"Question {chr(97 + n) * 9}?", "completion": f"Answer {chr(97 + n) * 12}."} for n in range(20)]
    place = Place(root=tmp_path / "datasets", template=Letters())
    built = import_file(written(tmp_path / "a.jsonl", [*rows, "{"]), Rules(kind="sft"), place, skip_bad=True)
    assert built.manifest.origin.startswith("jsonl sha256:")
    train = list(parquet.rows(built.folder, "train"))
    assert {row["completion"][0]["content"] for row in train} <= {row["completion"] for row in rows}
    again = check(built.folder / "train.parquet")
    assert (again.kind, again.rows, again.bad) == ("sft", len(train), 0)
