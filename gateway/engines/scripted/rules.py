"""What vLLM 0.32 refuses, in its words. Pure: a parsed body in, the accepted request or `Refused` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.engines.scripted import wording
from gateway.engines.scripted.wording import Kind

_FLOATS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_INTS = ("max_tokens", "max_completion_tokens", "n", "seed", "top_logprobs")
_DEFAULT_COMPLETION_TOKENS = 16


class Refused(Exception):
    """An answer that is not 200: `status` and `body`."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(body.decode())
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One inference request as the engine understood it. `texts` holds one prompt for each answer wanted of `n`."""

    kind: Kind
    texts: tuple[str, ...]
    prompt_tokens: int
    max_tokens: int
    n: int
    stream: bool
    usage: bool
    logprobs: bool
    prompt_logprobs: bool
    forced: bool


def document(raw: bytes) -> dict[str, Any]:
    """The body as an object."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        raise Refused(400, wording.BAD_BODY) from None
    if not raw:
        raise invalid("missing", "body", "Field required", "None")
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid("json_invalid", f"body.{error.pos}", "JSON decode error", "<dict of 0 items>") from None
    if not isinstance(found, dict):
        words = "Input should be a valid dictionary or object to extract fields from"
        raise invalid("model_attributes_type", "body", words, f"<{type(found).__name__} of {len(raw)} bytes>")
    return found


def check(kind: Kind, body: dict[str, Any], max_model_len: int) -> Ask:
    """Everything vLLM looks at before it starts, in its order."""
    _check_types(kind, body)
    texts, tokens = _chat(body) if kind == "chat" else _prompts(body)
    _check_ranges(body)
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    room = max_model_len - tokens
    if room <= 0:
        raise bad(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains at least "
            f"{max_model_len + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce "
            f"the length of the input prompt. (parameter=input_tokens, value={max_model_len + 1})",
            "input_tokens",
        )
    if asked is not None and asked > max_model_len:
        raise bad(
            f"max_tokens={asked} cannot be greater than max_model_len={max_model_len}. Please request fewer output "
            f"tokens. (parameter=max_tokens, value={asked})",
            "max_tokens",
        )
    default = room if kind == "chat" else _DEFAULT_COMPLETION_TOKENS
    options = body.get("stream_options") or {}
    return Ask(
        kind=kind,
        texts=texts,
        prompt_tokens=tokens,
        max_tokens=min(room, int(asked) if asked is not None else default),
        n=int(body.get("n") or 1),
        stream=bool(body.get("stream")),
        usage=bool(options.get("include_usage")),
        logprobs=body.get("logprobs") is not None and body["logprobs"] is not False,  # 0 asks for the chosen token
        prompt_logprobs=body.get("prompt_logprobs") is not None,
        forced=bool(body.get("ignore_eos") or body.get("min_tokens")),
    )


def content(value: Any) -> str:
    """The text of a message's content: a string, or parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    texts = []
    for part in value:
        if isinstance(part, dict) and "text" in part:
            texts.append(str(part["text"]))
        elif isinstance(part, dict):
            raise bad("base is not a multimodal model", None)
    return " ".join(texts)


def _check_types(kind: Kind, body: dict[str, Any]) -> None:
    if kind == "chat":
        if "messages" not in body:
            raise invalid("missing", "body.messages", "Field required", f"<dict of {len(body)} items>")
        if not isinstance(body["messages"], list):
            raise invalid("list_type", "body.messages", "Input should be a valid list", str(body["messages"]))
    for names, number, word in ((_FLOATS, float, "number"), (_INTS, int, "integer")):
        for name in names:
            value = body.get(name)
            if isinstance(value, str):
                like = "a number" if number is float else "an integer"
                words = f"Input should be a valid {word}, unable to parse string as {like}"
                raise invalid(f"{number.__name__}_parsing", f"body.{name}", words, value)
            if value is not None and not isinstance(value, int | float):
                raise invalid(f"{number.__name__}_type", f"body.{name}", f"Input should be a valid {word}", str(value))
    stop = body.get("stop")
    if stop is not None and not isinstance(stop, str | list):
        raise invalid("string_type", "body.stop", "Input should be a valid string", str(stop))


def _check_ranges(body: dict[str, Any]) -> None:
    temperature, top_p, n = body.get("temperature"), body.get("top_p"), body.get("n")
    if temperature is not None and temperature < 0:
        raise _bad_value(
            "temperature", f"temperature must be non-negative, got {float(temperature)}.", float(temperature)
        )
    if temperature is not None and temperature > 2:
        raise _bad_value("temperature", f"temperature must be in [0, 2], got {float(temperature)}.", float(temperature))
    if top_p is not None and not 0 < top_p <= 1:
        raise _bad_value("top_p", f"top_p must be in (0, 1], got {float(top_p)}.", float(top_p))
    if n is not None and n < 1:
        raise bad(f"n must be at least 1, got {n}.", None)
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and body[name] < 1:
            raise _bad_value("max_tokens", f"max_tokens must be at least 1, got {body[name]}", body[name])
    if (body.get("top_logprobs") or 0) > 20:
        words = f"Requested sample logprobs of {body['top_logprobs']}, which is greater than max allowed: 20"
        raise _bad_value("logprobs", words, body["top_logprobs"])
    if body.get("stream_options") and not body.get("stream"):
        words = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
        raise bad(words, "stream_options")
    if body.get("cache_salt") == "":
        words = "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)"
        raise bad(words, "cache_salt")
    if body.get("tools") and body.get("tool_choice") != "none":
        raise bad('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', None)


def _chat(body: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    messages = [message for message in body["messages"] if isinstance(message, dict)]
    if not messages:
        raise bad("Cannot apply chat template to an empty conversation. Provide at least one message.", None)
    texts = [content(message.get("content")) for message in messages]
    return (texts[-1],), sum(len(text.split()) + 3 for text in texts) + 2


def _prompts(body: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    prompt = body.get("prompt")
    prompts = prompt if isinstance(prompt, list) and all(isinstance(p, str) for p in prompt) else [prompt]
    texts = tuple(p if isinstance(p, str) else " ".join(map(str, p)) for p in prompts if p)
    if not texts:
        words = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        raise bad(words, "prompt")
    return texts, sum(len(text.split()) for text in texts)


def unknown_model(name: str, base: str) -> Refused:
    words = f"The model `{name}` does not exist. Valid aliases: {base}."
    return Refused(404, wording.error(404, "NotFoundError", words, "model"))


def bad(message: str, param: str | None) -> Refused:
    return Refused(400, wording.error(400, "BadRequestError", message, param))


def _bad_value(param: str, message: str, value: object) -> Refused:
    return bad(f"{message} (parameter={param}, value={value})", param)


def invalid(kind: str, loc: str, message: str, found: str) -> Refused:
    problem = {"type": kind, "loc": loc, "msg": message, "input": found}
    return Refused(400, wording.error(400, "Bad Request", f"1 validation error:\n  {problem}", loc))
