"""A stored completion as the SDK reads it, from whatever its record kept."""

from __future__ import annotations

import json
from typing import Any

from gateway.api.control.completions_documents import completion, messages
from monitoring.records.events import Inference, uuid7


def record(request: Any = None, response: Any = None, **values: Any) -> Inference:
    given: dict[str, Any] = {
        "completion_id": "chatcmpl-1",
        "request": request if request is None or isinstance(request, str) else json.dumps(request),
        "response": response if response is None or isinstance(response, str) else json.dumps(response),
    }
    return Inference(id=uuid7(), endpoint="chat", model="support", started_at=1.8e9, status=200, **(given | values))


def test_a_whole_answer_is_told_as_it_was() -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi", "refusal": None, "tool_calls": []},
        "finish_reason": "stop",
        "logprobs": None,
    }
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "support@candidate",
        "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        "system_fingerprint": "fp",
    }
    found = completion(record({"seed": 5, "top_p": 0.5}, answer, metadata={"a": "b"}, request_id="r1", user="u"))
    assert {name: found[name] for name in answer} == answer
    assert (found["seed"], found["top_p"], found["tools"]) == (5, 0.5, None)
    assert (found["metadata"], found["request_id"], found["input_user"]) == ({"a": "b"}, "r1", "u")
    assert "service_tier" not in found


def test_a_stream_that_broke_off_has_no_finish_and_the_counts_of_its_record() -> None:
    joined = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [{"index": 0}]}
    found = completion(record({}, joined, prompt_tokens=3, completion_tokens=2, cached_tokens=1))
    assert found["object"] == "chat.completion"
    assert (found["created"], found["model"]) == (1_800_000_000, "support")
    assert found["choices"] == [
        {
            "index": 0,
            "finish_reason": None,
            "logprobs": None,
            "message": {"role": "assistant", "content": None, "refusal": None},
        }
    ]
    assert (found["usage"]["total_tokens"], found["usage"]["prompt_tokens_details"]) == (5, {"cached_tokens": 1})


def test_records_that_kept_no_whole_body_still_have_their_frame() -> None:
    for response in (None, "not json", "[1]", '{"choices": 7}'):
        found = completion(record('{"cut', response))
        assert (found["id"], found["choices"]) == ("chatcmpl-1", [])
        assert messages(record('{"cut', response)) == []
    assert completion(record({}, {"choices": ["odd"]}))["choices"] == ["odd"]


def test_messages_have_ids_and_media_are_named_by_what_they_held() -> None:
    media = {"media": "image/png", "sha256": "ab", "bytes": 9}
    parts = [
        {"type": "text", "text": "this"},
        {"type": "image_url", "image_url": {"url": media, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}},
    ]
    asked = {
        "messages": [
            {"role": "system", "content": "brief"},
            {"role": "user", "content": parts, "name": "ada", "id": "theirs"},
            "odd",
            {"role": "assistant", "tool_calls": [{"id": "t"}]},
        ]
    }
    first, second, third = messages(record(asked))
    assert first == {
        "id": "chatcmpl-1-0",
        "role": "system",
        "content": "brief",
        "content_parts": None,
        "name": None,
        "refusal": None,
    }
    assert (second["id"], second["content"], second["name"]) == ("chatcmpl-1-1", None, "ada")
    assert second["content_parts"] == [
        parts[0],
        {"type": "image_url", "image_url": {"url": "urn:sha256:ab", "detail": "low"}},
        parts[2],
    ]
    assert (third["id"], third["content"], third["tool_calls"]) == ("chatcmpl-1-3", None, [{"id": "t"}])
