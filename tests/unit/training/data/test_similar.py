"""Near-duplicates are found by sketches of a few bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from training.data.choice.similar import alike, similarity, sketched

WORDS = [f"{a}{b}" for a in ("ba", "ke", "li", "mo", "nu", "ra") for b in ("dor", "fin", "gel", "hap", "jun", "kix")]


def text(rng: random.Random, words: int = 40) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def groups(texts: list[str], least: float = 0.8) -> list[int]:
    return [int(each) for each in alike(np.array([sketched(each) for each in texts]), least)]


def jaccard(one: str, other: str) -> float:
    a, b = ({each[i : i + 5] for i in range(len(each) - 4)} for each in (one, other))
    return len(a & b) / len(a | b)


def test_case_and_blanks_do_not_matter() -> None:
    assert groups(["Hello there, friend.", "hello   THERE,\nfriend."]) == [0, 0]


def test_different_texts_stay_apart() -> None:
    rng = random.Random(1)
    assert groups([text(rng) for _ in range(200)]) == list(range(200))


def test_a_third_text_that_is_like_both_joins_them() -> None:
    words = text(random.Random(2), 60).split()
    texts = [" ".join(words), " ".join([*words[:-1], "x"]), " ".join([*words[:-2], "y", "x"])]
    assert groups(texts) == [0, 0, 0]


def test_sketches_estimate_similarity_within_their_error() -> None:
    rng = random.Random(3)
    errors = []
    for changed in range(0, 30, 3):
        words = text(rng, 60).split()
        other = [f"zz{i}" if i < changed else each for i, each in enumerate(words)]
        one, two = " ".join(words), " ".join(other)
        errors.append(similarity(sketched(one), sketched(two)) - jaccard(one, two))
    assert abs(np.mean(errors)) < 0.06
    assert max(map(abs, errors)) < 0.25


@pytest.mark.slow
def test_nearly_all_pairs_above_the_bound_are_found_and_hardly_any_far_below() -> None:
    rng = random.Random(4)
    texts: list[str] = []
    above: list[int] = []
    below: list[int] = []
    for number in range(400):
        words = text(rng, 50).split()
        other = list(words)
        for place in rng.sample(range(50), 1 if number % 2 else 18):
            other[place] = f"q{number}{place}"
        texts += [" ".join(words), " ".join(other)]
        (above if number % 2 else below).append(2 * number)
    found = groups(texts)
    near = [jaccard(texts[at], texts[at + 1]) for at in above]
    assert min(near) > 0.88
    assert sum(found[at + 1] == at for at in above) >= 0.98 * len(above)
    assert sum(found[at + 1] == at for at in below) == 0


def test_an_empty_text_and_a_long_one_have_sketches_too() -> None:
    assert sketched("").size == sketched("word " * 5000).size == 64


def test_a_good_and_a_bad_answer_that_are_the_same_both_stay() -> None:
    sketches = np.array([sketched("Hello there, friend.")] * 3)
    assert alike(sketches, 0.8, np.array([1, 0, 1], np.uint8)).tolist() == [0, 1, 0]
