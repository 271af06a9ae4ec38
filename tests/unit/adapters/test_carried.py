"""What a version carries: read strictly, refused with reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.carried import FILE, FILE_BYTES_MAX, SYSTEM_BYTES_MAX, Carried, checked, read_carried
from adapters.errors import Findings


def read(folder: Path, content: Any) -> tuple[Carried, set[str]]:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / FILE).write_text(text)
    findings = Findings()
    carried = read_carried(folder, findings)
    return carried, {reason.code for reason in findings.reasons()}


def test_a_folder_without_the_file_carries_nothing(tmp_path: Path) -> None:
    findings = Findings()
    assert not read_carried(tmp_path, findings)
    assert findings.reasons() == ()


def test_everything_that_may_be_carried_comes_back_as_it_was_written(tmp_path: Path) -> None:
    document = {
        "system": "You are the night desk. Sé breve.",
        "sampling": {
            "temperature": 0.2,
            "top_p": 0.9,
            "top_k": -1,
            "min_p": 0,
            "frequency_penalty": -2,
            "presence_penalty": 2,
            "repetition_penalty": 1.1,
            "max_tokens": 200,
            "seed": -(1 << 63),
        },
        "stop": ["###", "\n\n"],
    }
    carried, codes = read(tmp_path, document)
    assert codes == set()
    assert carried.document() == document
    assert Carried.from_document(carried.document()) == carried
    assert carried


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("[]", "bad_carried"),
        ("{", "bad_carried"),
        ("[" * 100_000, "bad_carried"),
        ('{"system": "a", "system": "b"}', "bad_carried"),
        ('{"sampling": {"temperature": NaN}}', "bad_carried"),
        ({"prompt": "x"}, "unknown_field"),
        ({"sampling": {"logit_bias": {"1": 100}}}, "unknown_field"),
        ({"sampling": {"cache_salt": 1}}, "unknown_field"),
        ({"system": None}, "bad_value"),
        ({"system": ["x"]}, "bad_value"),
        ({"system": "x" * (SYSTEM_BYTES_MAX + 1)}, "bad_value"),
        ('{"system": "\\ud800"}', "bad_value"),
        ({"sampling": []}, "bad_value"),
        ({"sampling": {"temperature": True}}, "bad_value"),
        ({"sampling": {"temperature": "0.2"}}, "bad_value"),
        ({"sampling": {"temperature": 2.1}}, "bad_value"),
        ({"sampling": {"top_p": 0}}, "bad_value"),
        ({"sampling": {"top_k": 1.5}}, "bad_value"),
        ({"sampling": {"max_tokens": 0}}, "bad_value"),
        ({"sampling": {"seed": 1 << 63}}, "bad_value"),
        ('{"sampling": {"temperature": 1e999}}', "bad_value"),
        ({"stop": "###"}, "bad_value"),
        ({"stop": [""]}, "bad_value"),
        ({"stop": ["x"] * 17}, "bad_value"),
        ({"stop": ["x" * 257]}, "bad_value"),
        ({"stop": [1]}, "bad_value"),
        (" " * (FILE_BYTES_MAX + 1), "too_large"),
    ],
)
def test_what_may_not_be_carried_is_refused_by_its_kind(tmp_path: Path, content: Any, code: str) -> None:
    _, codes = read(tmp_path, content)
    assert codes == {code}


def test_everything_wrong_is_told_at_once_and_names_where() -> None:
    findings = Findings()
    checked({"system": 1, "sampling": {"top_p": 7, "best_of": 2}, "stop": {}, "extra": 1}, findings)
    assert [reason.field for reason in findings.reasons()] == [
        "graftline.json: extra",
        "graftline.json: sampling['best_of']",
        "graftline.json: system",
        "graftline.json: sampling['top_p']",
        "graftline.json: stop",
    ]


def test_two_that_carry_the_same_are_equal_and_can_be_keys() -> None:
    one = Carried(system="a", sampling={"top_p": 0.5}, stop=("x",))
    same = Carried.from_document(one.document())
    assert one == same
    assert len({one, same}) == 1
