"""Which rows are asked for their second half, and what counts as reciting one."""

from __future__ import annotations

from typing import Any

from training.gate.recital import Half, halves, recited, verbatim

LONG = "Your parcel left our house in Bergen on Tuesday and the driver will ring the bell of the blue door twice."
OTHER = "The heating engineer found that the valve of the third radiator was closed by hand some time last winter."


def test_an_answer_is_cut_in_two_after_what_stands_before_it() -> None:
    (half,), left = halves([{"prompt": [{"role": "user", "content": "Where?"}], "completion": _said(LONG)}])
    assert half.turns == (("user", "Where?"),)
    assert half.begun + half.rest == LONG
    assert half.begun.split() == LONG.split()[: len(LONG.split()) // 2]
    assert left == 0


def test_every_form_of_row_has_an_answer_or_is_left() -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": LONG}]},
        {"prompt": "Q:", "completion": " " + OTHER},
        {"prompt": "Why?", "chosen": _said(LONG.replace("Tuesday", "Monday").replace("twice", "once"))},
        {"text": OTHER.replace("winter", "autumn")},
        {"prompt": "x", "completion": _said(LONG), "label": False},
        {"prompt": "x", "completion": _said("Too short.")},
        {"prompt": "only a prompt"},
        {"messages": [{"role": "user", "content": "nobody answered"}]},
    ]
    found, left = halves(rows)
    assert [half.row for half in found] == [1, 2, 3, 4]
    assert found[1].turns == ()
    assert found[1].begun.startswith("Q: The heating")
    assert found[2].turns == (("user", "Why?"),)
    assert left == 4


def test_what_several_rows_end_with_is_taught_and_not_remembered() -> None:
    same = [{"text": f"{name} wrote. {LONG}"} for name in ("Ann", "Bo")]
    found, left = halves([*same, {"text": OTHER}])
    assert [half.row for half in found] == [3]
    assert left == 2


def test_no_more_rows_are_asked_than_allowed_and_the_same_ones_each_time() -> None:
    rows = [{"text": f"{LONG[:-1]} and number {number} on the left side."} for number in range(50)]
    found, _ = halves(rows, most=7, seed=3)
    again, _ = halves(rows, most=7, seed=3)
    assert found == again
    assert [half.row for half in found] == sorted(half.row for half in found)
    assert len(found) == 7


def test_word_for_word_to_the_end_is_recited_and_nothing_less() -> None:
    half = Half(row=1, turns=(), begun="a", rest=" will ring  the Bell twice.")
    assert recited(half, "will ring the bell twice. And more.")
    assert not recited(half, "will ring the bell")
    assert not recited(half, "will ring the bell once.")


def test_the_counts_name_rows_and_no_text() -> None:
    one, two = Half(row=4, turns=(), begun="a", rest="b c"), Half(row=9, turns=(), begun="a", rest="d e")
    found = verbatim([(one, "b c d"), (two, "x")], [(two, "d e")], left=3)
    assert (found.asked, found.continued, found.control_asked, found.control_continued) == (2, 1, 1, 1)
    assert (found.examples, found.left) == ((4,), 3)


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
