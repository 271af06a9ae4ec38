"""Which records are worth a look, and that each says why."""

from __future__ import annotations

from typing import Any

import pytest

from monitoring.records.events import Inference
from monitoring.review.novelty import novelty, vectors
from monitoring.review.picking import Candidate, Query, candidate, partners, picks
from monitoring.review.values import By
from tests.unit.monitoring.review.desks import an_id, record, word


def shown(record_: Inference, *said: Any) -> Candidate:
    found = candidate(record_, said)
    assert found is not None
    return found


def chosen(by: By, *among: Candidate, n: int = 10, query: Query | None = None) -> dict[int, str]:
    """The number of each record that was picked, in the order of picking, and why."""
    numbers = {each.record.id: place for place, each in enumerate(among)}
    return {numbers[pick.record]: pick.reason.why for pick in picks(by, among, n, query or Query())}


def test_raters_who_disagree_come_before_kinds_of_words_that_do() -> None:
    even = shown(record(0), word(1, 0, value=1.0), word(2, 0, value=-1.0))
    uneven = shown(record(1), *(word(n, 1, value=1.0) for n in (3, 4)), word(5, 1, value=-1.0))
    copied = shown(record(2), word(6, 2, value=-1.0), word(7, 2, "implicit", name="copied"))
    regenerated = shown(record(3), word(8, 3, value=1.0), word(9, 3, "implicit", name="regenerated"))
    agreed = shown(record(4), word(10, 4, value=1.0), word(11, 4, value=2.0), word(12, 4, "implicit", name="copied"))
    silent, taken_back = shown(record(5)), shown(record(6), word(13, 6), word(14, 6, value=1.0))
    found = chosen(By.DISAGREEMENT, even, uneven, copied, regenerated, agreed, silent, taken_back)
    assert found == {
        0: "1 thumbs up, 1 down",
        1: "2 thumbs up, 1 down",
        2: "1 thumbs down, yet copied",
        3: "1 thumbs up, yet regenerated",
    }


def test_a_scalar_speaks_against_a_thumb_on_its_side_of_the_median() -> None:
    stars = [shown(record(n), word(n, n, "scalar", float(n), name="stars")) for n in range(1, 5)]
    low = shown(record(5), word(5, 5, "scalar", 0.0, name="stars"), word(6, 5, value=1.0))
    assert chosen(By.DISAGREEMENT, *stars, low) == {4: "1 thumbs up, yet stars 0 below the median 2"}
    assert chosen(By.DISAGREEMENT, *stars[1:], low) == {}  # four values have no middle


def test_the_first_of_something_new_is_picked_and_what_follows_it_is_not() -> None:
    usual = [shown(record(n, f"Where is my parcel number {n}?")) for n in range(5)]
    odd = [shown(record(9 + n, f"Schreibe ein Sonett über Quallen, Fassung {n}.")) for n in range(2)]
    found = chosen(By.NOVELTY, *usual, *odd)
    assert list(found) == [5]
    assert "of 5 earlier prompts" in found[5]


def test_distance_is_nothing_for_the_same_and_all_for_what_shares_nothing() -> None:
    found = novelty(["the same words", "The  same\nwords", "xyz", ""])
    assert [each.before for each in found] == [0, 1, 2, 3]
    assert found[0].distance == 0.0
    assert found[1].distance == pytest.approx(0.0, abs=1e-6)
    assert found[2].distance == pytest.approx(1.0)
    assert found[3].distance == 1.0
    assert not vectors([""]).any()


def test_blocks_of_the_matrix_product_do_not_show() -> None:
    texts = [f"question {n % 7} about {n}" for n in range(600)]
    found = novelty(texts)
    assert [each.before for each in found] == list(range(600))
    again = novelty(texts[:500])
    assert [each.distance for each in found[:500]] == pytest.approx([each.distance for each in again], abs=1e-5)


def test_the_least_likely_come_first_where_answers_hold_logprobs() -> None:
    sure, unsure = shown(record(0, logprobs=[-0.1, -0.1])), shown(record(1, logprobs=[-2.0, -4.0]))
    middling, without = shown(record(2, logprobs=[-1.0])), shown(record(3))
    found = chosen(By.LIKELIHOOD, sure, unsure, middling, without)
    assert found == {1: "mean logprob -3.00 over 2 tokens; the median of 3 answers with logprobs is -1.00"}
    assert chosen(By.LIKELIHOOD, without) == {}
    assert list(chosen(By.LIKELIHOOD, unsure)) == [0]


def test_alarms_say_what_went_off_the_worst_first() -> None:
    calm, broken = shown(record(0, error="client_left")), shown(record(1, incomplete=True, error="engine_unavailable"))
    tainted, filtered = shown(record(2, tainted="gave NaN")), shown(record(3, finish="content_filter"))
    found = chosen(By.ALARM, calm, broken, tainted, filtered)
    assert found == {
        2: "tainted: gave NaN",
        1: "broke off after its first byte; error engine_unavailable",
        3: "a content filter ended it",
    }


def test_a_query_takes_the_newest_and_says_what_was_asked_for() -> None:
    query = Query(adapter="support", metadata={"language": "de"})
    among = [shown(record(n, metadata={"language": "de"})) for n in range(3)]
    found = chosen(By.QUERY, *among, n=2, query=query)
    assert found == dict.fromkeys((2, 1), "asked for: adapter support, metadata language=de")


@pytest.mark.parametrize(
    ("query", "matching"),
    [
        (Query(), True),
        (Query(model="support", adapter="support:1", arm="new", experiment="e1"), True),
        (Query(adapter="support"), True),
        (Query(adapter="supp"), False),
        (Query(adapter="support:2"), False),
        (Query(model="other"), False),
        (Query(arm="old"), False),
        (Query(experiment="e2"), False),
        (Query(metadata={"a": "1"}), True),
        (Query(metadata={"a": "1", "b": "2"}), False),
        (Query(completions=("chatcmpl-1",)), True),
        (Query(completions=("chatcmpl-2",)), False),
    ],
)
def test_a_query_matches_on_every_field_it_names(query: Query, matching: bool) -> None:
    assert query.matches(record(1, arm="new", experiment="e1", metadata={"a": "1"})) is matching


def test_pairs_answer_the_same_prompt_by_different_sources_and_come_once() -> None:
    ours = [shown(record(n, "why?", f"because {n}", arm="old")) for n in range(2)]
    theirs = shown(record(5, "why?", "therefore", arm="new"))
    same_words = shown(record(6, "why?", "therefore", arm="third"))
    other_prompt = shown(record(7, "how?", "so", arm="new"))
    among = [*ours, theirs, other_prompt]
    found = partners(picks(By.QUERY, among, 10, Query()), among)
    assert [(one.record.id, other.record.id) for _, one, other in found] == [(an_id(5), an_id(1))]
    among = [theirs, same_words]
    assert partners(picks(By.QUERY, among, 10, Query()), among) == []


def test_what_cannot_be_shown_or_has_no_id_is_no_candidate() -> None:
    assert candidate(record(1, request=None, response=None)) is None
    assert candidate(record(1, completion_id="")) is None
    kept = candidate(record(1))
    assert kept is not None
    assert (kept.record.request, kept.record.response) == (None, None)
