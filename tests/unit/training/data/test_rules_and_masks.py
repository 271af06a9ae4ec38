"""Rules are strict; placeholders are masked; what redaction still finds leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.data.made import candidate
from training.data.errors import BadRules
from training.data.masks import cleaned, says_something, spans
from training.data.reasons import MEANS, Reason, Tally
from training.data.rules import Rules, parse, read
from training.data.values import Candidate, Message


def test_all_problems_of_rules_are_told_together() -> None:
    with pytest.raises(BadRules) as problem:
        parse({"kind": "magic", "evaluation": 0.9, "unknown": 1})
    assert [each.split(":")[0] for each in problem.value.problems] == ["kind", "evaluation", "unknown"]


def test_rules_come_from_a_file_with_options_on_top(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('kind = "kto"\nuser_cap = 3\n[raters]\n"ann" = 0.5\n')
    assert read(path, kind="sft") == Rules(kind="sft", user_cap=3, raters={"ann": 0.5})
    path.write_text("kind = ")
    with pytest.raises(BadRules, match=r"rules\.toml"):
        read(path)


def test_every_reason_says_what_it_means() -> None:
    assert MEANS.keys() == set(Reason)


def test_a_tally_keeps_few_examples_and_all_counts() -> None:
    tally = Tally()
    for number in range(5):
        tally.add(Reason.EMPTY, str(number))
    assert (tally.total, tally.examples[Reason.EMPTY]) == (5, ["0", "1", "2"])


def test_placeholders_are_found_and_are_no_words() -> None:
    assert spans("Write to [EMAIL], not [email].") == [(9, 16)]
    assert says_something("call [PHONE]")
    assert not says_something(" [PHONE] - [EMAIL].")


@pytest.mark.parametrize(
    ("text", "why"),
    [("Mail ann@example.com", Reason.PERSONAL), ("Use sk-abcdefghij0123456789abcd", Reason.SECRET)],
)
def test_what_redaction_still_finds_leaves_or_is_masked(text: str, why: Reason) -> None:
    for place in ({"asked": text}, {"answer": text}, {"prompt": (Message(role="system", content=text),)}):
        assert cleaned(candidate(**place), "drop") is why
    masked = cleaned(candidate(asked=text), "mask")
    assert isinstance(masked, Candidate)
    assert "[" in masked.asked


def test_data_that_stands_across_two_texts_is_none() -> None:
    assert not isinstance(cleaned(candidate(asked="My version is", answer="10.1.2.3x"), "drop"), Reason)
    assert cleaned(candidate(asked="My version is", answer="10.1.2.3"), "drop") is Reason.PERSONAL


def test_an_answer_of_placeholders_alone_leaves() -> None:
    assert cleaned(candidate(answer="[PHONE]"), "drop") is Reason.PLACEHOLDERS
    assert cleaned(candidate("dpo", answer="Yes.", rejected="[IP]"), "drop") is Reason.PLACEHOLDERS
