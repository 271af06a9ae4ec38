"""Replies → numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from training.data.values import Message
from training.evaluation.compare import Sureness, compared
from training.evaluation.rows import Likelihood, Look, Reply, Row
from training.evaluation.values import Asked, Measured, Subject

SURE = Sureness(resamples=300)


def row(at: int, *, answer: str = "", unit: str = "", **columns: str) -> Row:
    return Row(
        id=f"s:{at}",
        prompt=(Message(role="user", content=f"question {at}"),),
        answer=answer,
        columns=columns,
        unit=unit,
    )


def measured(asked: Asked, rows: Sequence[Row], **replies: Sequence[Reply]) -> dict[tuple[str, str], Measured]:
    by: dict[Subject, Sequence[Reply]] = replies  # type: ignore[assignment]
    return {(each.name, each.subject): each for each in compared(asked, rows, by, SURE)}


def said(*texts: str | None) -> list[Reply]:
    return [Reply(text=text, tokens=len(text.split())) if text is not None else Reply(failed="away") for text in texts]


def test_the_candidate_is_held_against_the_others_on_the_same_rows() -> None:
    rows = [row(at, answer="yes") for at in range(40)]
    found = measured(
        Asked(name="held", source=""),
        rows,
        candidate=said(*["yes"] * 30, *["no"] * 10),
        base=said(*["no"] * 40),
        live=said(*["yes"] * 40),
    )
    exact = found["held.exact", "candidate"]
    assert (exact.value, exact.n, exact.unit, exact.role) == (0.75, 40, "share", "held")
    assert exact.low < 0.75 < exact.high
    assert exact.versus_base is not None
    assert exact.versus_base.value == 0.75
    assert exact.versus_base.low > 0.5
    assert exact.versus_live is not None
    assert exact.versus_live.high < 0
    assert found["held.exact", "base"].versus == ()
    assert ("held.wins_over_base", "base") not in found


def test_rows_that_one_of_two_did_not_answer_leave_their_comparison_and_nothing_else() -> None:
    rows = [row(at, answer="yes") for at in range(6)]
    found = measured(
        Asked(name="held", source=""),
        rows,
        candidate=said("yes", "yes", "no", "no", None, "yes"),
        base=said(None, "yes", "yes", "no", "no", "yes"),
    )
    exact = found["held.exact", "candidate"]
    assert exact.n == 5
    assert exact.versus_base is not None
    assert exact.versus_base.n == 4
    assert exact.versus_base.value == pytest.approx(2 / 4 - 3 / 4)


def test_a_loss_weighs_tokens_and_not_rows() -> None:
    rows = [Row(id=str(at), text="x") for at in range(3)]
    weighed = [Likelihood(total=-2.0, tokens=1), Likelihood(total=-8.0, tokens=8), Likelihood(total=-1.0, tokens=1)]
    found = measured(Asked(name="held", source=""), rows, candidate=[Reply(wanted=each) for each in weighed])
    loss, perplexity = found["held.loss", "candidate"], found["held.perplexity", "candidate"]
    assert loss.value == pytest.approx(1.1)
    assert loss.unit == "nats per token"
    assert not loss.higher_is_better
    assert perplexity.value == pytest.approx(math.exp(1.1))
    assert ("held.exact", "candidate") not in found


def test_pairs_are_preferred_by_the_likelihood_of_a_token() -> None:
    rows = [row(at, answer="a") for at in range(2)]
    long, short = Likelihood(total=-4.0, tokens=8), Likelihood(total=-2.0, tokens=2)
    found = measured(
        Asked(name="held", source=""),
        rows,
        candidate=[Reply(wanted=long, unwanted=short, text="a"), Reply(wanted=short, unwanted=long, text="a")],
    )
    assert found["held.preferred", "candidate"].value == 0.5


def test_a_cut_names_the_worst_slice_and_its_gap() -> None:
    rows = [row(at, answer="yes", route="shop" if at < 10 else "help") for at in range(20)]
    found = measured(
        Asked(name="held", source="", by=("route",)), rows, candidate=said(*["yes"] * 10, *["no"] * 8, "yes", "yes")
    )
    (cut,) = found["held.exact", "candidate"].cuts
    assert (cut.by, cut.worst) == ("route", "help")
    assert cut.gap == pytest.approx(0.8)
    assert [(each.name, each.n, each.value) for each in cut.slices] == [("help", 10, 0.2), ("shop", 10, 1.0)]
    (lower,) = found["held.cut_off", "candidate"].cuts
    assert lower.gap == 0


def test_where_less_is_better_the_worst_slice_is_the_one_with_most() -> None:
    rows = [row(at, route="shop" if at < 10 else "help") for at in range(20)]
    found = measured(
        Asked(name="over", source="", role="over_refusal", by=("route",)),
        rows,
        candidate=said(*["Sorry, I can not help."] * 9, *["Yes."] * 11),
    )
    refused = found["over.refused", "candidate"]
    assert refused.better == "lower"
    assert refused.cuts[0].worst == "shop"


def test_classification_has_accuracy_and_a_macro_f1() -> None:
    rows = [row(at, answer="good" if at % 4 else "bad") for at in range(20)]
    found = measured(Asked(name="mood", source="", role="task"), rows, candidate=said(*["good"] * 20))
    assert found["mood.accuracy", "candidate"].value == 0.75
    assert found["mood.f1_macro", "candidate"].value == pytest.approx((2 * 15 / (2 * 15 + 5) + 0) / 2)


def test_free_answers_are_no_classification() -> None:
    rows = [row(at, answer=f"answer {at}") for at in range(20)]
    found = measured(Asked(name="mood", source="", role="task"), rows, candidate=said(*["answer 1"] * 20))
    assert ("mood.accuracy", "candidate") not in found
    assert found["mood.exact", "candidate"].value == 0.05


def test_a_rows_own_looks_are_measures_by_their_names() -> None:
    polite = Look(name="polite", regex="^Thank", better="higher")
    rows = [
        Row(
            id=str(at), prompt=(Message(role="user", content="?"),), looks=(Look(name="right", contains=("9",)), polite)
        )
        for at in range(4)
    ]
    found = measured(
        Asked(name="held", source="", measures=("right", "polite")),
        rows,
        candidate=said("Thank you: 9", "9", "Thank you", "-"),
    )
    assert {name for name, _ in found} == {"held.right", "held.polite"}
    assert found["held.right", "candidate"].value == 0.5
    assert found["held.polite", "candidate"].value == 0.5


def test_stereotypes_are_weighed_and_people_are_compared() -> None:
    likely, unlikely = Likelihood(total=-1.0, tokens=4), Likelihood(total=-3.0, tokens=4)
    sentences = [Row(id=f"t{at}", text="a", other="b") for at in range(4)]
    people = [
        Row(
            id=f"p{at}", prompt=(Message(role="user", content="I am Ann"),),
            twin=(Message(role="user", content="I am Bob"),), swap=("Ann", "Bob"),
        )
        for at in range(2)
    ]  # fmt: skip
    replies = [
        *[Reply(wanted=likely, unwanted=unlikely)] * 3,
        Reply(wanted=unlikely, unwanted=likely),
        Reply(text="Hello Ann", twin="Hello Bob"),
        Reply(text="Hello Ann", twin="Go away"),
    ]
    found = measured(Asked(name="stereotypes", source="", role="stereotype"), [*sentences, *people], candidate=replies)
    assert found["stereotypes.stereotyped", "candidate"].value == 0.75
    assert found["stereotypes.lean", "candidate"].value == 0.5
    assert found["stereotypes.alike", "candidate"].value == 0.5


def test_rows_of_one_user_do_not_make_a_number_surer() -> None:
    replies = said(*(["yes"] * 8 + ["no"] * 8) * 4)
    free = measured(Asked(name="h", source=""), [row(at, answer="yes") for at in range(64)], candidate=replies)
    mine = measured(
        Asked(name="h", source=""), [row(at, answer="yes", unit=str(at // 8)) for at in range(64)], candidate=replies
    )
    narrow, wide = (each["h.exact", "candidate"] for each in (free, mine))
    assert narrow.value == wide.value
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_one_row_says_nothing_about_a_spread() -> None:
    assert measured(Asked(name="h", source=""), [row(0, answer="yes")], candidate=said("yes")) == {}


def test_the_same_replies_give_the_same_numbers() -> None:
    rows = [row(at, answer="yes or no") for at in range(12)]
    replies = said(*["yes", "no", "or"] * 4)
    first, again = (measured(Asked(name="h", source=""), rows, candidate=replies) for _ in range(2))
    assert first == again


def test_numbers_that_are_none_are_the_models_fault_and_silence_of_the_engine_is_not() -> None:
    replies = [*said("yes", "yes", "", None), Reply(failed="not_finite")]
    found = measured(Asked(name="h", source=""), [row(at) for at in range(5)], candidate=replies)
    answered = found["h.answered", "candidate"]
    assert (answered.value, answered.n) == (0.5, 4)
