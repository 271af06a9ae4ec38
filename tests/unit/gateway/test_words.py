"""What may be said of an answer."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gateway.access.errors import Forbidden
from gateway.errors import BadField, TooLarge
from gateway.words import Speaker, Word, checked, mirrored, mirrored_at_first
from monitoring.records.events import Inference, uuid7

ANYBODY = Speaker(tenant="acme", engineer=False)
TARGET = "chatcmpl-1"

GOOD: list[dict[str, Any]] = [
    {"kind": "thumbs", "value": 1},
    {"kind": "thumbs", "value": -1},
    {"kind": "thumbs", "value": 0},
    {"kind": "thumbs", "taken_back": True},
    {"kind": "scalar", "name": "stars", "value": 4.5},
    {"kind": "scalar", "name": "a.b:c-d_9", "taken_back": True},
    {"kind": "comment", "text": "too long"},
    {"kind": "correction", "text": "like this"},
    {"kind": "preference", "other": "chatcmpl-2"},
    {"kind": "implicit", "name": "copied"},
    {"kind": "implicit", "name": "regenerated", "value": 1},
    {"kind": "comment", "text": "hm", "target": "c-1", "target_kind": "conversation"},
]


@pytest.mark.parametrize("said", GOOD, ids=str)
def test_each_kind_is_taken_with_what_belongs_to_it(said: dict[str, Any]) -> None:
    word = Word(**({"target": TARGET} | said))
    assert checked(word, ANYBODY) == word


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"kind": "thumbs"}, "value"),
        ({"kind": "thumbs", "value": 2}, "value"),
        ({"kind": "thumbs", "value": math.nan}, "value"),
        ({"kind": "thumbs", "value": 1, "text": "nice"}, "text"),
        ({"kind": "scalar", "value": 1}, "name"),
        ({"kind": "scalar", "name": "stars"}, "value"),
        ({"kind": "scalar", "name": "stars", "value": math.inf}, "value"),
        ({"kind": "scalar", "name": "two words", "value": 1}, "name"),
        ({"kind": "scalar", "name": "x" * 65, "value": 1}, "name"),
        ({"kind": "comment"}, "text"),
        ({"kind": "comment", "text": " \n"}, "text"),
        ({"kind": "comment", "text": "x", "value": 1}, "value"),
        ({"kind": "correction"}, "text"),
        ({"kind": "correction", "text": "x", "target_kind": "conversation"}, "target_kind"),
        ({"kind": "preference"}, "other"),
        ({"kind": "preference", "other": TARGET}, "other"),
        ({"kind": "preference", "other": "x" * 513}, "other"),
        ({"kind": "preference", "other": "x", "target_kind": "conversation"}, "target_kind"),
        ({"kind": "implicit"}, "name"),
        ({"kind": "implicit", "name": "sighed"}, "name"),
        ({"kind": "implicit", "name": "copied", "value": 7}, "value"),
        ({"kind": "thumbs", "value": 1, "target": ""}, "target"),
        ({"kind": "thumbs", "value": 1, "target": "x" * 513}, "target"),
        ({"kind": "thumbs", "value": 1, "rater": "x" * 513}, "rater"),
        ({"kind": "thumbs", "value": 1, "rater": "\ud800"}, "rater"),
        ({"kind": "thumbs", "value": 1, "target": "\ud800"}, "target"),
        ({"kind": "comment", "text": "\udfff"}, "text"),
        ({"kind": "preference", "other": "\udfff"}, "other"),
    ],
    ids=ascii,
)
def test_what_does_not_belong_or_is_missing_is_named(said: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        checked(Word(**({"target": TARGET} | said)), ANYBODY, "items.3.")
    assert caught.value.param == f"items.3.{param}"


def test_a_text_beyond_its_bound_is_too_large() -> None:
    with pytest.raises(TooLarge):
        checked(Word(target=TARGET, kind="comment", text="x" * 65_537), ANYBODY)


@pytest.mark.parametrize("rater_kind", ["judge", "system", "reviewer"])
def test_only_engineers_speak_for_others_than_users(rater_kind: Any) -> None:
    word = Word(target=TARGET, kind="thumbs", value=1, rater_kind=rater_kind)
    with pytest.raises(Forbidden):
        checked(word, ANYBODY)
    assert checked(word, Speaker(tenant="acme", engineer=True)) == word


@pytest.mark.parametrize("capture", ["metadata", "off"])
def test_a_key_that_keeps_no_text_is_told_so_and_may_still_say_the_rest(capture: Any) -> None:
    quiet = Speaker(tenant="acme", engineer=False, capture=capture)
    for kind in ("comment", "correction"):
        with pytest.raises(BadField) as caught:
            checked(Word(target=TARGET, kind=kind, text="x"), quiet)
        assert caught.value.code == "text_not_captured"
    assert checked(Word(target=TARGET, kind="thumbs", value=1), quiet).value == 1


def test_what_happened_is_taken_back_with_a_zero() -> None:
    word = Word(target=TARGET, kind="implicit", name="copied", taken_back=True)
    assert checked(word, ANYBODY).value == 0


def answer(**values: Any) -> Inference:
    given: dict[str, Any] = {"completion_id": TARGET, "user": "u-1", "stored": True}
    return Inference(id=uuid7(), endpoint="chat", model="m", started_at=1.0, status=200, **(given | values))


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("feedback.thumbs", "up", {"kind": "thumbs", "value": 1.0}),
        ("feedback.thumbs", " Down ", {"kind": "thumbs", "value": -1.0}),
        ("feedback.thumbs", "1", {"kind": "thumbs", "value": 1.0}),
        ("feedback.thumbs", "-1", {"kind": "thumbs", "value": -1.0}),
        ("feedback.scalar.stars", "4.5", {"kind": "scalar", "name": "stars", "value": 4.5}),
        ("feedback.scalar.a.b", "-3", {"kind": "scalar", "name": "a.b", "value": -3.0}),
        ("feedback.comment", "well", {"kind": "comment", "text": "well"}),
        ("feedback.correction", "so", {"kind": "correction", "text": "so"}),
        ("feedback.preferred_over", "chatcmpl-2", {"kind": "preference", "other": "chatcmpl-2"}),
        ("feedback.implicit", "abandoned", {"kind": "implicit", "name": "abandoned"}),
    ],
)
def test_reserved_metadata_says_what_feedback_says(key: str, text: str, said: dict[str, Any]) -> None:
    word = Word(target=TARGET, rater="u-1", **said)
    assert checked(word, ANYBODY) == word
    assert mirrored(answer(), {key: text, "team": "a"}) == [word]
    assert mirrored_at_first(answer(metadata={key: text, "team": "a"})) == [word]
    assert mirrored(answer(metadata={key: text}), {key: text}) == []


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("feedback.thumbs", "maybe"),
        ("feedback.thumbs.up", "1"),
        ("feedback.scalar", "1"),
        ("feedback.scalar.two words", "1"),
        ("feedback.scalar.stars", "nan"),
        ("feedback.scalar.stars", "1e999"),
        ("feedback.scalar.stars", "1_0"),
        ("feedback.comment", " "),
        ("feedback.preferred_over", TARGET),
        ("feedback.implicit", "sighed"),
        ("feedback.mood", "good"),
        ("feedback.", "x"),
    ],
)
def test_a_reserved_pair_that_says_nothing_is_refused_later_and_left_out_at_first(key: str, text: str) -> None:
    with pytest.raises(BadField) as caught:
        mirrored(answer(), {key: text})
    assert caught.value.param == f"metadata.{key}"
    assert mirrored_at_first(answer(metadata={key: text})) == []


def test_what_is_left_out_of_the_metadata_is_taken_back() -> None:
    before = answer(metadata={"feedback.thumbs": "up", "feedback.comment": "x", "feedback.mood": "y", "team": "a"})
    assert mirrored(before, {}) == [Word(target=TARGET, rater="u-1", kind="thumbs", taken_back=True)]


@pytest.mark.parametrize("values", [{"stored": False}, {"completion_id": ""}])
def test_an_answer_that_is_not_stored_says_nothing_at_first(values: dict[str, Any]) -> None:
    assert mirrored_at_first(answer(metadata={"feedback.thumbs": "up"}, **values)) == []
