"""Error bodies recorded from vLLM 0.32, and what they become."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines import nan
from gateway.engines.errors import AdapterMissing, EnginePoisoned, EngineRefused
from gateway.engines.refusals import translate

CHAT = "/v1/chat/completions"


def body(message: str, kind: str = "BadRequestError", param: str | None = None, code: int = 400) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def validation(*problems: Mapping[str, str], loc: str) -> bytes:
    lines = "".join(f"\n  {problem}" for problem in problems)
    return body(f"{len(problems)} validation error{'s' if len(problems) > 1 else ''}:{lines}", "Bad Request", loc)


def test_the_parameter_note_at_the_end_is_taken_off() -> None:
    message = "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"
    error = translate("e", 400, body(message, param="temperature"), CHAT)
    assert (error.code, error.param, error.message) == (
        "invalid_value",
        "temperature",
        "temperature must be non-negative, got -1.0.",
    )
    message = "token_id(s) [9] in logit_bias contain out-of-vocab token ids. Vocabulary size: 3 "
    message += "(parameter=logit_bias, value=[9])"
    assert translate("e", 400, body(message, param="logit_bias"), CHAT).message.endswith("Vocabulary size: 3")


def test_a_missing_field_is_named_as_the_client_named_it() -> None:
    problem = {"type": "missing", "loc": "body.messages", "msg": "Field required", "input": "<dict of 1 items>"}
    error = translate("e", 400, validation(problem, loc="body.messages"), CHAT)
    assert (error.code, error.param, error.message) == (
        "missing_required_parameter",
        "messages",
        "`messages` is required.",
    )


def test_a_wrong_type_says_what_was_found() -> None:
    problems = [
        {"type": "string_type", "loc": "body.stop", "msg": "Input should be a valid string", "input": "3"},
        {"type": "list_type", "loc": "body.stop", "msg": "Input should be a valid list", "input": "3"},
    ]
    error = translate("e", 400, validation(*problems, loc="body.stop"), CHAT)
    assert (error.code, error.param) == ("invalid_type", "stop")
    assert error.message == "`stop`: Input should be a valid string; Input should be a valid list (found 3)."


@pytest.mark.parametrize(
    ("path", "param"),
    [(CHAT, "messages"), ("/v1/completions", "prompt"), ("/v1/responses", "input"), ("", "messages")],
)
def test_a_prompt_that_is_too_long_names_the_prompts_field(path: str, param: str) -> None:
    message = (
        "This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input tokens, "
        "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
        "(parameter=input_tokens, value=1025)"
    )
    error = translate("e", 400, body(message, param="input_tokens"), path)
    assert (error.code, error.param) == ("context_length_exceeded", param)
    assert error.message.endswith("length of the input prompt.")


def test_an_unknown_model_is_a_missing_adapter_and_engine_names_stay_inside() -> None:
    message = "The model `support@0123456789abcdef` does not exist. Valid aliases: base."
    error = translate("e", 404, body(message, "NotFoundError", "model", 404), CHAT)
    assert isinstance(error, AdapterMissing)
    assert error.retryable
    assert "support@" not in error.message


def test_an_engine_without_the_endpoint_says_so() -> None:
    error = translate("e", 404, b'{"detail":"Not Found"}', "/v1/embeddings")
    assert (error.status, error.code) == (404, "unsupported_endpoint")
    assert "/v1/embeddings" in error.message


def test_a_dead_engine_tells_a_client_nothing_of_its_insides_and_another_may_be_tried() -> None:
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    error = translate("e", 500, body(message, "InternalServerError", code=500), CHAT)
    assert (error.status, error.code, error.retryable) == (500, "engine_error", True)
    assert "EngineCore" not in error.message


def test_a_refused_adapter_keeps_the_reason_and_loses_the_path() -> None:
    message = (
        "Call to add_lora method failed: Worker failed with error 'Loading lora /srv/art/ab failed: rank 32 is greater "
        "than max_lora_rank 16.', please check the stack trace above for the root cause"
    )
    error = translate("e", 500, body(message, "InternalServerError", code=500), "/v1/load_lora_adapter")
    assert error.code == "adapter_refused"
    assert error.message.endswith("Loading lora <path> failed: rank 32 is greater than max_lora_rank 16.")


@pytest.mark.parametrize(
    "answer", [b"", b"null", b"[]", b"<html>", b'{"error":7}', b'{"error":{"message":[]}}', b"\xff"]
)
@pytest.mark.parametrize("status", [302, 400, 404, 422, 500, 503])
def test_any_answer_becomes_an_error_with_a_message(answer: bytes, status: int) -> None:
    error = translate("e", status, answer, CHAT)
    assert error.message
    assert error.code
    assert 400 <= error.status <= 599
    assert error.engine == "e"


@given(message=st.text(max_size=300), param=st.none() | st.text(max_size=20), status=st.integers(400, 599))
def test_no_message_upsets_the_translation(message: str, param: str | None, status: int) -> None:
    for text in (message, f"1 validation error:\n  {message}"):
        assert isinstance(translate("e", status, body(text, param=param), CHAT), EngineRefused)


def test_nan_is_an_error_of_its_own_that_tells_a_client_nothing_of_others() -> None:
    message = nan.write(at=8.5, first_at=7.5, first=["others@0123456789abcdef", ""], contained=True)
    error = translate("e", 500, body(message, "Internal Server Error", code=500), CHAT)
    assert isinstance(error, EnginePoisoned)
    assert (error.at, error.first_at, error.contained) == (8.5, 7.5, True)
    assert error.first == ("others@0123456789abcdef", "")
    assert (error.engine, error.status, error.code, error.retryable) == ("e", 500, "engine_poisoned", False)
    assert "others" not in str(error)
