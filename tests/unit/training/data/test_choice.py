"""Contradictions, near-duplicates, caps and splits decide on columns; every loser has a reason."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.unit.training.data.made import candidate
from training.data.choice.caps import choose, class_weights, factors, leave, reason, stays, undecided
from training.data.choice.index import LAYOUT, Index
from training.data.choice.similar import HASHES
from training.data.choice.split import divide, leaks
from training.data.reasons import Reason
from training.data.rules import Rules

WORDS = [f"{one}{two}" for one in ("am", "ced", "fjor", "her", "jol") for two in ("ber", "ish", "ton", "ul")]


def sentence(number: int) -> str:
    return " ".join(WORDS[(number * prime + number // prime) % 20] for prime in (3, 5, 7, 11, 13, 17, 19, 23)) + str(
        number
    )


def index(*rows: Any) -> Index:
    made = Index()
    for number, row in enumerate(rows):
        made.add(row, offset=number, tokens=10)
    return made


def fates(made: Index, rules: Rules) -> list[str]:
    fate, _ = choose(made, rules)
    return [reason(each).value if each else "" for each in fate.tolist()]


def test_the_weightier_side_of_a_contradiction_stays_and_of_equals_neither() -> None:
    made = index(
        candidate(label=True, weight=2.0),
        candidate(label=False, weight=1.0),
        candidate(asked="Bye", answer="See you.", label=True),
        candidate(asked="Bye", answer="See you.", label=False),
    )
    assert fates(made, Rules(kind="kto")) == ["", "contradicted", "tied", "tied"]


def test_of_near_duplicates_the_weightiest_then_the_newest_stays() -> None:
    asked = sentence(1) + " " + sentence(2)
    made = index(
        candidate("sft", asked=asked, answer=sentence(3), at=1.0),
        candidate("sft", asked=asked + "!", answer=sentence(3), at=2.0),
        candidate("sft", asked=asked + "?", answer=sentence(3), at=3.0, weight=0.5),
    )
    assert fates(made, Rules(kind="sft")) == ["near_duplicate", "", "near_duplicate"]


def test_a_good_and_a_bad_answer_that_are_nearly_the_same_both_stay() -> None:
    text = sentence(1) + " " + sentence(2)
    made = index(
        candidate(asked=text, answer="30 days", label=False), candidate(asked=text, answer="45 days", label=True)
    )
    assert fates(made, Rules(kind="kto")) == ["", ""]


@pytest.mark.parametrize(
    ("rules", "differs", "why"),
    [
        ({"user_cap": 2}, {"owner": "ann"}, "user_cap"),
        ({"route_cap": 2, "user_cap": 0}, {"route": "support"}, "route_cap"),
        ({"label_cap": 2, "user_cap": 0}, {"label": True}, "label_cap"),
    ],
)
def test_a_cap_keeps_the_newest(rules: dict[str, int], differs: dict[str, Any], why: str) -> None:
    made = index(*(candidate(asked=sentence(n), answer=sentence(n + 50), at=float(n), **differs) for n in range(4)))
    assert fates(made, Rules(kind="kto", **rules)) == [why, why, "", ""]  # type: ignore[arg-type]


def test_questions_that_differ_by_numbers_only_are_one_cluster() -> None:
    made = index(
        *(
            candidate("sft", asked=f"Where is my order {n}, please tell me?", answer=sentence(n))
            for n in range(1000, 1004)
        )
    )
    assert Counter(fates(made, Rules(kind="sft", cluster_cap=1, similar=1.0)))["cluster_cap"] == 3


def test_without_an_owner_nobody_is_capped() -> None:
    made = index(*(candidate(asked=sentence(n), answer=sentence(n + 50)) for n in range(5)))
    assert fates(made, Rules(kind="kto", user_cap=1)) == [""] * 5


def test_weights_follow_route_label_and_the_size_of_the_cluster() -> None:
    made = index(
        candidate(label=True, route="a"),
        candidate(asked="other", answer=sentence(1), label=False, route="b"),
        candidate(asked="other", answer=sentence(2), label=False, route="b"),
    )
    rules = Rules(kind="kto", route_weights={"a": 3.0}, label_weights={"down": 0.5}, cluster_balance=1.0)
    assert factors(made, undecided(3), rules).tolist() == [3.0, 0.25, 0.25]


@pytest.mark.parametrize(
    ("up", "down", "weights"),
    [(10, 10, (1, 1)), (10, 40, (4, 1)), (40, 10, (1, 3)), (12, 10, (1, 1)), (0, 5, (1, 1))],
)
def test_class_weights_bring_the_classes_between_one_and_four_thirds(
    up: float, down: float, weights: tuple[float, float]
) -> None:
    desirable, undesirable = class_weights(up, down)
    assert (desirable, undesirable) == weights
    if up and down:
        assert 1.0 <= desirable * up / (undesirable * down) <= 4 / 3 + 1e-9


@cache
def many(users: int = 100, rows: int = 4) -> Index:
    return index(
        *(
            candidate(
                asked=sentence(7 * n),
                answer=sentence(1000 + n),
                owner=f"user-{n % users}",
                at=float(n),
                label=n % 3 > 0,
            )
            for n in range(users * rows)
        )
    )


@pytest.mark.parametrize("split", ["user", "time", "user_time", "prompt"])
def test_no_split_leaks(split: Any) -> None:
    made, rules = many(), Rules(kind="kto", split=split, evaluation=0.2)
    fate, duplicates = undecided(made.size), np.arange(made.size)
    held = divide(made, fate, duplicates, rules)
    found = leaks(made, fate, duplicates, held)
    assert 20 <= held.sum() <= 90
    assert (found.questions, found.near_duplicates) == (0, 0)
    if split.startswith("user"):
        assert found.users == 0


@pytest.mark.slow
def test_a_split_by_user_gives_every_label_and_quarter_its_share() -> None:
    made = many(users=300)
    held = divide(made, undecided(made.size), np.arange(made.size), Rules(kind="kto", evaluation=0.2))
    label, quarter = made.column("label"), (made.column("at") // (made.size / 4)).astype(int)
    for kind in (0, 1):
        for part in range(4):
            stratum = (label == kind) & (quarter == part)
            assert 0.1 < held[stratum].mean() < 0.3


def test_the_seed_and_nothing_else_decides_who_is_held_out() -> None:
    made = many()
    splits = [divide(made, undecided(made.size), np.arange(made.size), Rules(kind="kto", seed=s)) for s in (1, 1, 2)]
    assert (splits[0] == splits[1]).all()
    assert (splits[0] != splits[2]).any()


def test_a_question_that_training_has_cannot_evaluate() -> None:
    made = index(
        *(candidate(asked="The same?", answer=sentence(n), owner=f"u{n}", label=bool(n % 2)) for n in range(40))
    )
    fate = undecided(40)
    held = divide(made, fate, np.arange(40), Rules(kind="kto", evaluation=0.2))
    assert not held.any()
    assert Counter(reason(each) for each in fate[fate > 0].tolist()).keys() == {Reason.LEAKED}


def test_the_check_sees_a_leak_that_the_split_left() -> None:
    made = index(candidate(asked="A", owner="x"), candidate(asked="A", owner="x"))
    found = leaks(made, undecided(2), np.array([0, 0]), np.array([True, False]))
    assert (found.users, found.questions, found.near_duplicates) == (1, 1, 1)


def test_who_has_left_does_not_leave_again() -> None:
    fate = undecided(2)
    leave(fate, np.array([True, False]), Reason.USER_CAP)
    leave(fate, np.array([True, True]), Reason.LEAKED)
    assert [reason(each) for each in fate.tolist()] == [Reason.USER_CAP, Reason.LEAKED]
    assert not stays(fate).any()


def test_nothing_at_all_is_chosen_and_split() -> None:
    fate, duplicates = choose(Index(), Rules(kind="sft"))
    assert not divide(Index(), fate, duplicates, Rules(kind="sft")).size


@pytest.mark.slow
def test_an_index_grows_in_place_and_keeps_what_it_had() -> None:
    made = index(*(candidate(answer=str(n), at=float(n)) for n in range(4200)))
    assert made.column("at").tolist() == [float(n) for n in range(4200)]
    assert LAYOUT.itemsize + HASHES == 125
