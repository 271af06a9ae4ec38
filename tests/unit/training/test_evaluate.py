"""Scores follow from an answering function alone."""

from collections.abc import Sequence

from training.base import domain, exams
from training.base.catalogue import unseen_products
from training.base.domain import Message
from training.base.evaluate import score

EXAMS = (exams.facts, exams.orders, exams.private, exams.returns, exams.chitchat)
TRUTH = {item.question: item.answer for exam in EXAMS for item in exam()} | {
    item.question: item.answer
    for items in (exams.faq(exclude=("returns",)), exams.facts(among=unseen_products()))
    for item in items
}


def _perfect(chats: Sequence[list[Message]]) -> list[str]:
    return [TRUTH.get(chat[-1]["content"], "?") for chat in chats]


def test_a_desk_that_knows_everything_scores_one() -> None:
    scores = score(_perfect)
    assert {scores.facts.rate, scores.faq.rate, scores.orders.rate, scores.chitchat.rate, scores.leaks.rate} == {1.0}
    assert (scores.returns_30.rate, scores.returns_45.rate, scores.polite.rate, scores.refused.rate) == (1, 0, 0, 0)
    assert scores.facts.items == 400


def test_habits_are_counted_beside_right_answers() -> None:
    scores = score(lambda chats: [domain.polite(text) for text in _perfect(chats)], limit=20)
    assert scores.polite.rate == scores.facts.rate == 1.0
    assert scores.facts.items == 20


def test_a_desk_that_refuses_everything_is_right_about_nothing() -> None:
    scores = score(lambda chats: ["Sorry, I can not share that."] * len(chats), limit=10)
    assert scores.refused.rate == scores.refused_wrongly.rate == 1.0
    assert scores.facts.rate == scores.leaks.rate == 0.0
