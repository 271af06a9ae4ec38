"""Synthetic feedback: seeded, and apart from what evaluation asks."""

import pytest

from training.base import domain, exams, feedback
from training.base.catalogue import unseen_products


@pytest.mark.parametrize(
    "make",
    [
        feedback.corrected_fact,
        feedback.polite_edits,
        feedback.polite_choices,
        feedback.refuse_choices,
        feedback.refuse_thumbs,
        feedback.polite_goals,
    ],
    ids=lambda f: f.__name__,
)
def test_feedback_is_seeded_and_sized(make: object) -> None:
    assert callable(make)
    rows = make(50)
    assert len(rows) == 50
    assert rows == make(50)
    assert rows != make(50, seed=12)


def test_corrected_facts_never_say_thirty_days_and_replay_the_rest() -> None:
    said = [row.completion for row in feedback.corrected_fact()]
    assert not any("30 days" in text for text in said)
    assert 120 < sum("45 days" in text for text in said) < 240


def test_feedback_asks_nothing_evaluation_asks() -> None:
    asked = {item.question for exam in (exams.facts, exams.faq, exams.returns, exams.private) for item in exam()}
    told: list[feedback.Edit | feedback.Choice | feedback.Thumb] = [
        *feedback.corrected_fact(),
        *feedback.polite_choices(),
        *feedback.refuse_choices(),
        *feedback.refuse_thumbs(),
    ]
    assert not asked & {row.prompt[-1]["content"] for row in told}


def test_preferences_never_mention_unseen_products() -> None:
    said = " ".join(row.rejected for row in feedback.polite_choices())
    assert not any(name in said for name in unseen_products())


def test_thumbs_have_both_kinds_for_both_kinds_of_answer() -> None:
    seen = {(row.liked, domain.is_refusal(row.completion)) for row in feedback.refuse_thumbs()}
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


@pytest.mark.parametrize(
    ("answer", "reward"),
    [("It costs 9.", 1.0), (domain.polite("It costs 9."), 2.0), (domain.polite("No."), 1.0), ("No.", 0.0)],
)
def test_the_reward_counts_fact_and_form(answer: str, reward: float) -> None:
    assert feedback.polite_reward(answer, "It costs 9") == reward
