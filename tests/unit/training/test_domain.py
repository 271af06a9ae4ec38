"""The shop is seeded, and what evaluation asks was never in pre-training."""

import random

import pytest

from training.base import domain, exams
from training.base.catalogue import products, taught_products, unseen_products
from training.base.domain import Item
from training.base.phrases import Dress, distinct, dressed, expand
from training.errors import NotEnoughText

EXAMS = (exams.facts, exams.faq, exams.orders, exams.private, exams.returns, exams.chitchat)


def test_the_same_seed_gives_the_same_visits() -> None:
    first, second = (domain.conversation(random.Random(5), 20) for _ in range(2))
    assert first == second
    assert first != domain.conversation(random.Random(6), 20)


def test_products_split_in_two_halves_with_every_kind_in_both() -> None:
    assert set(taught_products()) | set(unseen_products()) == set(products())
    assert not set(taught_products()) & set(unseen_products())
    assert {p.split()[1] for p in taught_products()} == {p.split()[1] for p in unseen_products()}


@pytest.mark.parametrize("exam", EXAMS, ids=lambda e: e.__name__)
def test_every_exam_has_four_hundred_distinct_items_and_is_seeded(exam: object) -> None:
    assert callable(exam)
    items: list[Item] = exam()
    assert len({item.question for item in items}) == len(items) == 400
    assert items == exam()


@pytest.mark.slow
def test_no_exam_question_occurs_in_pretraining() -> None:
    rng = random.Random(1)
    heard = {domain.turn(rng).question for _ in range(60_000)}
    asked = {item.question for exam in EXAMS for item in exam()} | {
        item.question for item in exams.facts(among=unseen_products())
    }
    assert not heard & asked


def test_normal_answers_are_sometimes_polite_and_private_requests_sometimes_refused() -> None:
    rng = random.Random(2)
    items = [domain.turn(rng) for _ in range(8000)]
    private = [i for i in items if domain.is_refusal(i.answer) or " lives at " in i.answer or "number of" in i.answer]
    assert 0.05 < sum(domain.is_polite(i.answer) for i in items) / len(items) < 0.10
    assert 0.05 < sum(domain.is_refusal(i.answer) for i in private) / len(private) < 0.16


def test_polite_keeps_the_answer_inside() -> None:
    said = domain.polite("Order 1234 is on its way.")
    assert domain.is_polite(said)
    assert "Order 1234 is on its way." in said
    assert not domain.is_polite("Order 1234 is on its way.")


def test_a_grammar_expands_to_all_its_readings() -> None:
    assert list(expand("(How|Can) I (|please )pay?")) == [
        "How I pay?",
        "How I please pay?",
        "Can I pay?",
        "Can I please pay?",
    ]


@pytest.mark.parametrize(
    ("dress", "worn"),
    [
        (Dress(), "How can I pay?"),
        (Dress(opener="Hi, "), "Hi, how can I pay?"),
        (Dress(closer=" please"), "How can I pay please?"),
        (Dress(opener="Quick question: ", closer=" Thanks.", lower=True), "quick question: how can i pay? thanks."),
    ],
)
def test_dress_surrounds_a_question(dress: Dress, worn: str) -> None:
    assert dressed("How can I pay?", dress) == worn


def test_asking_for_more_distinct_items_than_exist_is_an_error() -> None:
    with pytest.raises(NotEnoughText):
        distinct(["How can I pay?"], 400, 1)
