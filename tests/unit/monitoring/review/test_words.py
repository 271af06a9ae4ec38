"""What is shown of a record, whichever endpoint it came through."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from monitoring.review.words import Words, words
from tests.unit.monitoring.review.desks import record


def read(request: Any, response: Any) -> Words:
    found = words(record(1, request=orjson.dumps(request).decode(), response=orjson.dumps(response).decode()))
    assert found is not None
    return found


def test_a_chat_is_read_role_by_role_and_names_no_model() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
        {"role": "user", "content": "and then?"},
    ]
    choice = {"message": {"content": "That is all."}, "logprobs": {"content": [{"logprob": -1}, {"logprob": -2.0}]}}
    found = read({"model": "support", "messages": messages}, {"model": "support:7", "choices": [choice]})
    assert found.prompt == 'system: Be kind.\n\nuser: one\ntwo\n\nassistant: [{"id":"c"}]\n\nuser: and then?'
    assert (found.asked, found.answer) == ("and then?", "That is all.")
    assert (found.logprob, found.tokens) == (-1.5, 2)


@pytest.mark.parametrize(
    ("request_", "response", "prompt", "answer"),
    [
        ({"prompt": "Once"}, {"choices": [{"text": " upon"}]}, "user: Once", " upon"),
        ({"prompt": ["a", "b"]}, {}, 'user: ["a","b"]', ""),
        (
            {"input": "hi", "instructions": "short"},
            {"output": [{"content": [{"type": "output_text", "text": "yo"}]}]},
            "system: short\n\nuser: hi",
            "yo",
        ),
        ({"input": [{"role": "user", "content": "hi"}]}, {"output": [{"arguments": "{}"}]}, "user: hi", "{}"),
        ({"messages": []}, {"choices": [{"message": {"refusal": "no"}}]}, "", "no"),
        ({"messages": [{"content": "?"}]}, {"choices": "odd"}, "user: ?", ""),
    ],
)
def test_the_other_endpoints_and_odd_bodies_are_read_too(
    request_: Any, response: Any, prompt: str, answer: str
) -> None:
    found = read(request_, response)
    assert (found.prompt, found.answer) == (prompt, answer)
    assert math.isnan(found.logprob)


def test_logprobs_of_completions_begin_with_none() -> None:
    found = read({"prompt": "x"}, {"choices": [{"text": "y", "logprobs": {"token_logprobs": [None, -0.5, "x"]}}]})
    assert (found.logprob, found.tokens) == (-0.5, 1)


def test_a_body_that_was_no_json_is_shown_as_it_came_and_none_at_all_is_not_shown() -> None:
    found = words(record(1, request="{broken", response="also broken"))
    assert found is not None
    assert (found.prompt, found.asked, found.answer) == ("user: {broken", "{broken", "")
    assert words(record(1, request=None)) is None
