"""From what a reviewer said to feedback."""

from __future__ import annotations

import math

import pytest

from monitoring.review.errors import BadAnswer
from monitoring.review.labels import TEXT_CHARS_MAX, check, feedback
from monitoring.review.values import Said, coin, shown, side
from tests.unit.monitoring.review.desks import NOW, task

LABEL, PAIR = task(1), task(2, 3, 4)


def test_everything_said_of_an_answer_becomes_a_word_of_its_own_redacted() -> None:
    said = Said(thumbs=-1, scalars={"tone": 2.5}, comment="ask joe@example.com", correction="call +44 20 7946 0958")
    check(LABEL, said)
    found = feedback(LABEL, "ann", said, now=NOW, key_id="k1")
    assert [(w.kind, w.name, w.value, w.text) for w in found] == [
        ("thumbs", "", -1.0, None),
        ("scalar", "tone", 2.5, None),
        ("comment", "", None, "ask [EMAIL]"),
        ("correction", "", None, "call [PHONE]"),
    ]
    (about,) = {(w.tenant, w.target, w.rater, w.rater_kind, w.source, w.key_id, w.at) for w in found}
    assert about == ("acme", "chatcmpl-1", "ann", "reviewer", "review", "k1", NOW)
    assert len({w.id for w in found}) == 4


@pytest.mark.parametrize(
    ("choice", "preferred"),
    [("first", [("chatcmpl-3", "chatcmpl-4")]), ("second", [("chatcmpl-4", "chatcmpl-3")]), ("tie", [])],
)
def test_a_choice_becomes_a_preference_and_a_tie_none(choice: str, preferred: list[tuple[str, str]]) -> None:
    said = Said(choice=choice, comment="shorter")  # type: ignore[arg-type]
    check(PAIR, said)
    found = feedback(PAIR, "ann", said, now=NOW)
    assert [(w.target, w.other) for w in found if w.kind == "preference"] == preferred
    assert [(w.target, w.text) for w in found if w.kind == "comment"] == [
        ("chatcmpl-3", "shorter"),
        ("chatcmpl-4", "shorter"),
    ]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(), "says nothing"),
        (Said(comment="  "), "says nothing"),
        (Said(choice="tie"), "cannot be chosen among"),
        (Said(thumbs=2), "thumbs are 1 or -1"),  # type: ignore[arg-type]
        (Said(correction=" "), "a correction needs the text"),
        (Said(scalars={"a": math.nan}), "finite"),
        (Said(scalars={"a": math.inf}), "finite"),
        (Said(scalars={"": 1.0}), "name has 1 to 64"),
        (Said(scalars={f"s{n}": 1.0 for n in range(17)}), "at most 16 scalars"),
        (Said(comment="x" * (TEXT_CHARS_MAX + 1)), "the comment may have"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(said: Said, reason: str) -> None:
    with pytest.raises(BadAnswer, match=reason):
        check(LABEL, said)


def test_a_comparison_takes_a_choice_and_every_reason_is_given_at_once() -> None:
    with pytest.raises(BadAnswer) as caught:
        check(PAIR, Said(thumbs=1, scalars={"": math.nan}))
    assert len(caught.value.reasons) == 4


def test_what_stood_on_a_side_is_found_again() -> None:
    for flipped in (False, True):
        for seen in ("left", "right", "tie"):
            assert shown(side(seen, flipped), flipped) == seen
    assert side("left", False) == side("right", True) == "first"


def test_the_coin_is_fair_and_the_same_each_time_for_who_has_the_secret() -> None:
    fell = [coin(b"secret", f"task-{n}", "ann") for n in range(2000)]
    assert fell == [coin(b"secret", f"task-{n}", "ann") for n in range(2000)]
    assert abs(sum(fell) - 1000) < 4 * 23  # four standard deviations
    assert fell != [coin(b"other", f"task-{n}", "ann") for n in range(2000)]
    assert fell != [coin(b"secret", f"task-{n}", "bob") for n in range(2000)]
