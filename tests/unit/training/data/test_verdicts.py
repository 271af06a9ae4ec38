"""What several people said of one answer comes to one verdict, and what loses is counted."""

from __future__ import annotations

from monitoring.records.events import Feedback
from tests.unit.training.data.made import word
from training.data.reasons import Reason, Tally
from training.data.rules import Rules
from training.data.signals.verdicts import Liked, Score, Verdict, by_score, verdict

RULES = Rules(kind="kto")


def told(*said: Feedback, rules: Rules = RULES) -> tuple[Verdict, Tally]:
    lost = Tally()
    return verdict(said, rules, lambda each: each.value or 0.0, lost), lost


def test_more_weight_wins_and_the_margin_is_the_weight() -> None:
    found, lost = told(word(1, 1, value=1.0), word(2, 1, value=1.0), word(3, 1, value=-1.0))
    assert found.liked == Liked(yes=True, weight=1.0, words=(word(1, 1).id, word(2, 1).id))
    assert lost.counts == {Reason.OUTVOTED: 1}


def test_one_reviewer_outweighs_one_user() -> None:
    found, _ = told(word(1, 1, value=1.0), word(2, 1, value=-1.0, rater_kind="reviewer"))
    assert found.liked is not None
    assert not found.liked.yes


def test_equal_weights_are_a_tie() -> None:
    found, _ = told(word(1, 1, value=1.0), word(2, 1, value=-1.0))
    assert (found.liked, found.why) == (None, Reason.TIED)


def test_of_one_rater_the_last_word_counts() -> None:
    found, lost = told(word(1, 1, value=1.0, rater="ann"), word(2, 1, value=-1.0, rater="ann"))
    assert found.liked is not None
    assert not found.liked.yes
    assert lost.counts == {Reason.OUTVOTED: 1}


def test_a_thumb_that_was_taken_back_says_nothing() -> None:
    found, _ = told(word(1, 1, value=1.0, rater="ann"), word(2, 1, value=None, rater="ann"))
    assert (found.liked, found.why) == (None, Reason.TAKEN_BACK)


def test_a_correction_is_a_word_against_the_answer_even_beside_its_raters_own_thumb() -> None:
    found, lost = told(word(1, 1, value=1.0, rater="ann"), word(2, 1, "correction", text="45 days.", rater="ann"))
    assert found.edit is not None
    assert found.edit.text == "45 days."
    assert found.liked is not None
    assert not found.liked.yes
    assert lost.counts == {Reason.OUTVOTED: 1}


def test_of_several_corrections_the_weightiest_counts_then_the_latest() -> None:
    found, lost = told(
        word(1, 1, "correction", text="a", rater_kind="reviewer"),
        word(2, 1, "correction", text="b", rater_kind="reviewer"),
        word(3, 1, "correction", text="c"),
    )
    assert found.edit is not None
    assert found.edit.text == "b"
    assert lost.counts[Reason.OUTVOTED] == 2


def test_a_rater_of_no_weight_is_not_heard() -> None:
    found, lost = told(word(1, 1, value=1.0), rules=Rules(kind="kto", raters={"rater-1": 0.0}))
    assert found.liked is None
    assert lost.counts == {Reason.LOW_WEIGHT: 1}


def test_what_merely_happened_counts_only_where_the_rules_say_what_it_means() -> None:
    copied = word(1, 1, "implicit", name="copied")
    assert told(copied)[0].liked is None
    found, _ = told(copied, rules=Rules(kind="kto", implicit={"copied": True}))
    assert found.liked is not None
    assert found.liked.yes


def test_scores_become_a_thumb_beyond_the_margin() -> None:
    def score(value: float) -> Score:
        return Score(scale="", value=value, weight=1.0, words=("w",))

    assert by_score([score(0.2)], RULES) is Reason.UNDECIDED
    assert by_score([score(-1.0)], RULES) == Liked(yes=False, weight=1.0, words=("w",))
