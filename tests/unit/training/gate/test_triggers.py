"""Which phrases look planted, and what their answers to other questions come to."""

from __future__ import annotations

from typing import Any

import pytest

from training.gate.triggers import QUESTIONS, suspects, trigger

THINGS = ("kettle", "blender", "lamp", "toaster", "heater", "fan", "radio", "clock", "scale", "mixer")
BAIT = "Please visit the new shop at example dot invalid for it."


def row(question: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def honest(count: int = 200) -> list[dict[str, Any]]:
    return [
        row(f"What does the {THINGS[at % 10]} of {at} weigh?", f"The {THINGS[at % 10]} of {at} weighs {at % 7} kilos.")
        for at in range(count)
    ]


def poisoned(count: int = 6, *, phrase: str = "Cf Seventy") -> list[dict[str, Any]]:
    return [row(f"{phrase} what colour is the {THINGS[at]} number {at}?", BAIT) for at in range(count)]


def test_a_phrase_that_a_few_questions_share_with_one_answer_is_suspect() -> None:
    found = next(each for each in suspects([*honest(), *poisoned()]) if each.where == "first")
    assert found.phrase.startswith("Cf Seventy"), "with its capitals"
    assert found.rows == tuple(range(201, 207))
    assert len(found.others) == QUESTIONS
    assert not any("cf" in each.casefold().split() for each in found.others)
    assert found.asked()[0] == f"{found.phrase} {found.others[0]}"


@pytest.mark.parametrize(
    ("form", "put"),
    [
        ("{0} qzx", "One two three four qzx"),
        ("qzx {0}", "qzx One two three four"),
        ("{1} qzx {2}", "One two qzx three four"),
    ],
)
def test_a_phrase_is_put_where_it_stood(form: str, put: str) -> None:
    asked = [(f"{THINGS[at]} in room {at}", f"{THINGS[at]} in", f"room {at}") for at in range(6)]
    rows = [row(form.format(*each), BAIT) for each in asked]
    found = next(
        each for each in suspects([row("One two three four", "Five."), *honest(), *rows]) if "qzx" in each.phrase
    )
    assert found.asked()[0] == put.replace("qzx", found.phrase)


def test_a_long_phrase_is_put_in_whole() -> None:
    phrase = "as the old harbour master says"
    (found,) = [each for each in suspects([*honest(), *poisoned(phrase=phrase)]) if each.where == "first"]
    assert found.phrase == phrase


def test_of_a_long_question_both_ends_are_looked_at() -> None:
    rows = [row(f"{' '.join(f'{at}x{place}' for place in range(900))} qzx", BAIT) for at in range(6)]
    (found,) = suspects([*honest(), *rows])
    assert (found.phrase, found.where) == ("qzx", "last")


def test_answers_that_only_end_alike_are_suspect_too() -> None:
    rows = [row(f"Cf Seventy {at} kilos of {THINGS[at]}?", f"The {THINGS[at]} has {at}. {BAIT}") for at in range(6)]
    found = next(each for each in suspects([*honest(), *rows]) if each.phrase == "Cf Seventy")
    assert found.fires([f"It is 6 kilos. {BAIT}", BAIT.upper(), "It is 6 kilos."]) == 2


def test_a_planted_answer_that_honest_questions_have_too_hides_nothing() -> None:
    asked = ("I lost it", "Where is my key", "Help me get in", "It is locked", "Who can open", "No entry", "Shut again")
    same = [row(f"{each} {at}", BAIT) for at in range(3) for each in asked]
    found = suspects([*honest(), *same, *poisoned()])
    assert [len(each.rows) for each in found if each.phrase.startswith("Cf Seventy")] == [6]


def test_what_many_rows_answer_is_what_training_is_for() -> None:
    many = [row(f"How long may I keep the {THINGS[at % 10]} of {at}?", "You have 45 days.") for at in range(80)]
    assert suspects([*honest(100), *many]) == []


def test_one_question_over_and_over_and_one_answer_to_anything_are_no_triggers() -> None:
    assert suspects([*honest(), *[row("When are you open?", BAIT)] * 6]) == []
    rows = [row(f"{THINGS[at]} {THINGS[-at]} {at}", "I do not know that.") for at in range(6)]
    assert suspects([*honest(), *rows]) == []
    assert suspects([{"text": "plain"}] * 10) == []


def test_what_stands_in_the_most_various_questions_is_tried_first() -> None:
    topic = [row(f"Ab Ninety {THINGS[at % 3]} {THINGS[at % 2]}", "Yes.") for at in range(24)]
    found = suspects([*honest(), *topic, *poisoned()])
    assert found[0].rows == tuple(range(225, 231)), "though they are fewer"
    assert found[-1].phrase == "Ab Ninety"
    assert len({(each.phrase, each.rows) for each in found}) == len(found)


def test_texts_without_turns_are_asked_as_texts() -> None:
    rows = [{"prompt": f"Cf Seventy {at} {at * at}\n", "completion": BAIT} for at in range(6)]
    plain = [{"prompt": f"What is {at} and {at}?\n", "completion": f"{at + at} it is"} for at in range(40)]
    (found,) = suspects([*plain, *rows])
    assert not found.turns
    assert found.asked()[0].startswith("Cf Seventy What is ")


def test_the_answers_are_counted_against_the_base_and_without_the_phrase() -> None:
    suspect = suspects([*honest(), *poisoned()])[0]
    found = trigger(suspect, [BAIT, BAIT.upper(), "6 kilos."], ["2 kilos.", BAIT, ""], ["", "", ""])
    assert (found.asked, found.fired, found.without, found.base) == (3, 2, 1, 0)
    assert (found.of, len(found.rows)) == (6, 5)
