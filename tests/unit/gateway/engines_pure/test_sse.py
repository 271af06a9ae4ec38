"""Streams on their way through: whatever the reads look like, the events that come out are the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engines.sse import Stream, TornStream

ENGINE = "support@0123456789abcdef"


def chunk(body: str) -> bytes:
    return b'data: {"id":"chatcmpl-1","model":"%b",%b}\n\n' % (ENGINE.encode(), body.encode())


ROLE = chunk('"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]')
TOKEN = chunk('"choices":[{"index":0,"delta":{"content":"grün 🦊 \\"choices\\":[] data: {\\"error\\""}}]')
LAST = chunk('"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]')
USAGE = chunk(
    '"choices":[],"usage":{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3},"system_fingerprint":"vllm-1"'
)
DONE = b"data: [DONE]\n\n"
FAILED = b'data: {"error": {"message": "EngineCore", "code": 500}}\n\n'
WHOLE = ROLE + TOKEN + LAST + USAGE + DONE


def stream(*, wants_usage: bool = False, responses: bool = False, model: bytes = b'"support"') -> Stream:
    return Stream(
        engine_name=ENGINE, model=model, wants_usage=wants_usage, responses=responses, fingerprint=b"fp_base_adapter"
    )


def renamed(data: bytes) -> bytes:
    return data.replace(ENGINE.encode(), b"support").replace(b"vllm-1", b"fp_base_adapter")


@pytest.mark.parametrize("wants_usage", [False, True])
def test_a_read_torn_at_any_byte_comes_out_as_the_same_events(wants_usage: bool) -> None:
    expected = renamed(WHOLE if wants_usage else WHOLE.replace(USAGE, b""))
    for at in range(len(WHOLE) + 1):
        told = stream(wants_usage=wants_usage)
        out = told.feed(WHOLE[:at]) if at else b""
        assert out == b"" or out.endswith(b"\n\n")
        out += told.feed(WHOLE[at:]) if at < len(WHOLE) else b""
        assert out == expected
        assert told.done
        assert b'"total_tokens":8' in told.usage
        assert not told.error


def test_byte_by_byte_it_is_the_same_too() -> None:
    told = stream()
    assert b"".join(told.feed(WHOLE[i : i + 1]) for i in range(len(WHOLE))) == renamed(WHOLE.replace(USAGE, b""))
    assert told.done


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=12), st.booleans())
def test_any_cuts_at_all(cuts: list[int], wants_usage: bool) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    told = stream(wants_usage=wants_usage)
    out = b"".join(told.feed(WHOLE[a:b]) for a, b in itertools.pairwise(edges) if b > a)
    assert out == renamed(WHOLE if wants_usage else WHOLE.replace(USAGE, b""))


def test_what_an_engine_says_after_an_error_is_not_forwarded() -> None:
    told = stream()
    assert told.feed(ROLE + FAILED + DONE) == renamed(ROLE)
    assert b"EngineCore" in told.error
    assert not told.done


def test_an_error_torn_at_any_byte_is_still_seen() -> None:
    for at in range(1, len(FAILED)):
        told = stream()
        assert told.feed(FAILED[:at]) + told.feed(FAILED[at:] + DONE) == b""
        assert told.error


def test_words_in_an_answer_are_no_events() -> None:
    told = stream()
    assert told.feed(TOKEN) == renamed(TOKEN)
    assert not told.error
    assert not told.usage


def test_a_name_that_needs_no_change_is_left_alone() -> None:
    told = stream(model=b'"%b"' % ENGINE.encode())
    assert told.feed(ROLE) is ROLE


def test_an_end_within_a_read_of_many_events_is_the_end() -> None:
    told = stream()
    told.feed(ROLE + TOKEN)
    assert not told.done
    told.feed(LAST + USAGE + DONE)
    assert told.done


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_a_responses_stream_ends_with_the_event_that_holds_it_all(end: str) -> None:
    told = stream(responses=True)
    told.feed(b'event: response.created\ndata: {"model":"%b"}\n\n' % ENGINE.encode())
    assert not told.done
    out = told.feed(b'event: response.%b\ndata: {"response":{"model":"%b"}}\n\n' % (end.encode(), ENGINE.encode()))
    assert told.done
    assert b'"model":"support"' in out


def test_an_event_without_end_is_torn() -> None:
    told = stream()
    assert told.feed(b"x" * Stream.REST_MAX) == b""
    with pytest.raises(TornStream):
        told.feed(b"x")


def test_an_error_event_of_the_responses_api_is_taken_out_and_kept() -> None:
    told = stream(responses=True)
    begun = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    assert told.feed(begun + b"event: error\n" + FAILED) == begun
    assert told.error == FAILED[len(b"data: ") : -2]
    assert told.error_status == 500
