"""One record and what was said of it become candidates for rows, or a reason."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from monitoring.records.events import Feedback, Inference
from tests.unit.training.data.made import inference, word
from training.data.reasons import Reason, Tally
from training.data.rules import Rules
from training.data.signals.answers import exchange, unfit
from training.data.signals.candidates import Outcome, nearer, outcome, packed, unpacked
from training.data.values import Message


def found(
    record: Inference, *said: Feedback, kind: Any = "kto", others: tuple[Inference, ...] = (), **more: Any
) -> Outcome:
    by_completion = {each.completion_id: each for each in others}
    rules = Rules(kind=kind, **more)
    return outcome(
        record,
        said,
        rules,
        centred=lambda each: each.value or 0.0,
        find=lambda completion, _tenant: by_completion.get(completion),
        lost=Tally(),
    )


def body(*messages: dict[str, Any], **more: Any) -> str:
    return orjson.dumps({"messages": list(messages), **more}).decode()


def response(*messages: dict[str, Any], **more: Any) -> str:
    return orjson.dumps({"choices": [{"message": each} for each in messages], **more}).decode()


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ({"tainted": "NaN"}, Reason.TAINTED),
        ({"status": 500}, Reason.FAILED),
        ({"incomplete": True}, Reason.INCOMPLETE),
        ({"captured": "metadata"}, Reason.NOT_CAPTURED),
        ({"response": None}, Reason.NOT_CAPTURED),
        ({"finish": "content_filter"}, Reason.FILTERED),
        ({"finish": "length"}, Reason.TRUNCATED),
        ({"finish": "tool_calls"}, Reason.TOOLS),
    ],
)
def test_an_answer_that_nothing_may_be_learnt_from_says_why(differs: dict[str, Any], why: Reason) -> None:
    assert unfit(inference(1, **differs)) is why
    assert found(inference(1, **differs), word(1, 1, value=1.0)) == Outcome(why=why)


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ({"request": "not json"}, Reason.UNREADABLE),
        ({"request": "[]"}, Reason.UNREADABLE),
        ({"request": "{}"}, Reason.UNREADABLE),
        ({"request": body({"role": "user", "content": 5})}, Reason.UNREADABLE),
        ({"request": '{"truncated":true,"bytes":9}'}, Reason.TRUNCATED),
        ({"request": body({"role": "assistant", "content": "a"})}, Reason.ROLES),
        ({"request": body({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})}, Reason.ROLES),
        ({"request": body({"role": "system", "content": "a"})}, Reason.ROLES),
        ({"request": body({"role": "user", "content": "a"}, {"role": "user", "content": "b"})}, Reason.ROLES),
        ({"request": body({"role": "user", "content": "a"}, {"role": "system", "content": "b"})}, Reason.ROLES),
        ({"request": body({"role": "user", "content": " "})}, Reason.EMPTY),
        ({"request": body({"role": "tool", "content": "a"})}, Reason.TOOLS),
        ({"request": body({"role": "user", "content": [{"type": "image_url", "image_url": {}}]})}, Reason.MEDIA),
        ({"response": response()}, Reason.UNREADABLE),
        ({"response": response({"content": "a"}, {"content": "b"})}, Reason.SEVERAL_ANSWERS),
        ({"response": response({"content": None})}, Reason.EMPTY),
        ({"response": response({"content": "a", "tool_calls": [{}]})}, Reason.TOOLS),
        ({"response": response({"content": "a"}, truncated=True)}, Reason.TRUNCATED),
        ({"endpoint": "completions"}, Reason.NOT_CHAT),
    ],
)
def test_a_conversation_that_cannot_be_told_says_why(differs: dict[str, Any], why: Reason) -> None:
    assert exchange(inference(1, **differs)) is why


def test_parts_of_text_are_joined_and_a_responses_answer_is_read_too() -> None:
    asked = orjson.dumps(
        {"instructions": "Be kind.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}
    )
    said = orjson.dumps(
        {"output": [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": "Hello."}]}]}
    )
    read = exchange(inference(1, endpoint="responses", request=asked.decode(), response=said.decode()))
    assert not isinstance(read, Reason)
    assert read.prompt == (Message(role="system", content="Be kind."), Message(role="user", content="Hi"))
    assert read.answer == "Hello."


def test_a_thumb_becomes_a_row_for_kto_with_its_lineage() -> None:
    (row,) = found(inference(1), word(1, 1, value=-1.0)).rows
    assert (row.label, row.answer, row.origin, row.owner) == (False, "30 days.", "thumbs", "user-1")
    assert (row.inferences, row.words) == ((inference(1).id,), (word(1, 1).id,))
    assert (row.policy, row.route) == ("sha256:three", "support")


def test_a_correction_becomes_an_sft_row_a_pair_and_two_kto_rows() -> None:
    edit = word(1, 1, "correction", text="45 days.")
    (row,) = found(inference(1), edit, kind="sft").rows
    assert (row.answer, row.origin) == ("45 days.", "correction")
    (pair,) = found(inference(1), edit, kind="dpo").rows
    assert (pair.answer, pair.rejected) == ("45 days.", "30 days.")
    bad, good = found(inference(1), edit).rows
    assert (bad.answer, bad.label, good.answer, good.label) == ("30 days.", False, "45 days.", True)


@pytest.mark.parametrize(("text", "why"), [("30  days. ", Reason.NO_CHANGE), ("30 days!", Reason.TINY_EDIT)])
def test_a_correction_that_changes_next_to_nothing_makes_no_pair(text: str, why: Reason) -> None:
    assert found(inference(1), word(1, 1, "correction", text=text), kind="dpo", edit_min=0.2).why is why


def test_texts_with_other_numbers_are_never_nearly_the_same() -> None:
    assert nearer("within thirty days of it", "within thirty day of it", 0.1)
    assert not nearer("within 30 days of it", "within 45 days of it", 0.5)


def test_a_preference_pairs_the_two_answers_to_one_question() -> None:
    other = inference(2, answer="14 days.")
    choice = word(1, 1, "preference", other="chatcmpl-2")
    (pair,) = found(inference(1), choice, kind="reward", others=(other,)).rows
    assert (pair.answer, pair.rejected, pair.inferences) == ("30 days.", "14 days.", (inference(1).id, other.id))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (None, Reason.OTHER_MISSING),
        (inference(2, asked="Something else?"), Reason.OTHER_PROMPT),
        (inference(2), Reason.SAME_ANSWERS),
        (inference(2, status=500), Reason.FAILED),
    ],
)
def test_a_preference_without_a_pair_says_why(other: Inference | None, why: Reason) -> None:
    choice = word(1, 1, "preference", other="chatcmpl-2")
    assert found(inference(1), choice, kind="dpo", others=(other,) if other else ()).why is why


def test_scores_and_thumbs_wait_for_another_answer_to_the_same_question() -> None:
    one = found(inference(1), word(1, 1, "scalar", 2.0, name="stars"), kind="dpo")
    other = found(inference(2, answer="14 days."), word(2, 2, "scalar", -1.0, name="stars"), kind="dpo")
    elsewhere = found(inference(3, asked="Else?"), word(3, 3, "scalar", 1.0, name="stars"), kind="dpo")
    assert one.waiting[0].question == other.waiting[0].question != elsewhere.waiting[0].question
    assert unpacked(packed(one.waiting[0].candidate)) == one.waiting[0].candidate


def test_reinforcement_rows_hold_the_question_and_what_is_known_of_its_answer() -> None:
    (row,) = found(inference(1), word(1, 1, value=-1.0), kind="rl").rows
    assert (row.answer, row.score) == ("", -1.0)
    (row,) = found(inference(1), word(1, 1, "correction", text="45 days."), kind="rl").rows
    assert row.answer == "45 days."
    assert found(inference(1), kind="rl").why is Reason.NO_FEEDBACK
    assert len(found(inference(1), kind="rl", unrated_too=True).rows) == 1


def test_a_liked_answer_is_an_sft_row_only_where_the_rules_say_so() -> None:
    assert found(inference(1), word(1, 1, value=1.0), kind="sft").why is Reason.OTHER_FEEDBACK
    assert len(found(inference(1), word(1, 1, value=1.0), kind="sft", likes_too=True).rows) == 1


def test_a_comment_alone_is_no_row() -> None:
    assert found(inference(1), word(1, 1, "comment", text="hm")).why is Reason.OTHER_FEEDBACK
