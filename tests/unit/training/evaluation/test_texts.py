"""Answers against wanted ones."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from training.evaluation.measures import texts


def test_exact_match_looks_past_case_marks_and_articles() -> None:
    assert texts.exact("The Ember blender!", "ember blender") == 1.0
    assert texts.exact("An ember mixer", "ember blender") == 0.0


def test_f1_counts_every_word_once_on_each_side() -> None:
    # 2 shared of 3 said and 4 wanted: P 2/3, R 1/2.
    assert texts.token_f1("red blue green", "red blue black white") == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert texts.token_f1("red red red", "red") == pytest.approx(0.5)
    assert texts.token_f1("", "") == 1.0
    assert texts.token_f1("", "red") == 0.0


def test_rouge_follows_its_paper() -> None:
    # Lin (2004): against its S1, S2 has a longest common subsequence of 3 words of 4, S3 one of 2.
    wanted = "police killed the gunman"
    assert texts.rouge_l("police kill the gunman", wanted) == pytest.approx(0.75)
    assert texts.rouge_l("the gunman kill police", wanted) == pytest.approx(0.5)
    assert texts.rouge_n("police kill the gunman", wanted, 2) == pytest.approx(1 / 3)
    assert texts.rouge_n("the gunman kill police", wanted, 2) == pytest.approx(1 / 3)
    assert texts.rouge_l("nothing alike", wanted) == 0.0


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    rng = random.Random(5)
    for _ in range(100):
        ours, theirs = ([rng.choice("abcd") for _ in range(rng.randrange(0, 20))] for _ in range(2))
        table = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
        for i, one in enumerate(ours):
            for j, other in enumerate(theirs):
                table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
        assert texts.subsequence(ours, theirs) == table[-1][-1]


def bleu(*pairs: tuple[str, str]) -> float:
    return float(texts.bleu(np.sum([texts.bleu_counts(*pair) for pair in pairs], axis=0)))


def test_bleu_follows_its_paper() -> None:
    same = "it is a guide to action that ensures"
    assert bleu((same, same)) == pytest.approx(1.0)
    # Papineni et al. (2002): the clipped precision of seven "the" against a reference with two.
    assert texts.bleu_counts("the the the the the the the", "the cat is on the mat")[0] == 2.0
    # 5-gram answer of a 7-token reference: all precisions are 1, only brevity costs.
    assert bleu(("a b c d e", "a b c d e f g")) == pytest.approx(math.exp(1 - 7 / 5))


def test_bleu_without_a_match_of_an_order_is_smoothed_as_nist_does() -> None:
    # 1-grams 3/4, 2-grams 1/3, 3-grams 0/2 → 1/4, 4-grams 0/1 → 1/4.
    found = bleu(("a b x d", "a b c d"))
    assert found == pytest.approx((3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** 0.25)
    assert bleu(("x", "a b c d")) == 0.0
    assert bleu(("", "a b")) == 0.0
    assert bleu(("yes", "yes")) == pytest.approx(1.0)  # orders that no answer is long enough for are left out


def test_bleu_is_of_the_corpus_and_not_the_mean_of_rows() -> None:
    pairs = [("a b c d", "a b c d"), ("a b", "a b c d e f g h")]
    assert bleu(*pairs) != pytest.approx((bleu(pairs[0]) + bleu(pairs[1])) / 2)


def test_perplexity_is_the_exponential_of_the_mean_loss_of_a_token() -> None:
    assert texts.perplexity(np.array([6.0, 3.0])) == pytest.approx(math.exp(2))
    assert np.isfinite(texts.perplexity(np.array([1e9, 1.0])))


def test_macro_f1_gives_rare_labels_the_same_say() -> None:
    # Label 0: 8 right, 2 missed; label 1: never said, 0 of 2 right.
    summed = np.array([8.0, 0.0, 2.0, 0.0, 0.0, 2.0])
    assert texts.macro_f1(summed) == pytest.approx((16 / 18 + 0.0) / 2)


def test_a_lean_is_none_at_one_half() -> None:
    assert texts.lean(np.array([5.0, 10.0])) == 0.0
    assert texts.lean(np.array([[0.0, 10.0], [10.0, 10.0]])).tolist() == [1.0, 1.0]


def test_an_answer_too_short_for_n_grams_shares_none() -> None:
    assert texts.rouge_n("yes", "yes", 2) == 0.0
    assert texts.rouge_n("yes", "yes", 1) == 1.0
