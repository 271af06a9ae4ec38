"""Which fields a request may carry, and what they must look like. Pure.

A field is passed to the engine, kept for ourselves, or refused; what is in no table is refused. Types and bounds that
the engine checks well are left to it: here stand the ones that protect the engine or that it gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.api.openai.refused import REFUSED
from gateway.errors import BadField, UnknownField
from gateway.values import Endpoint

Check = Callable[[str, Any, "Bounds"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits from the settings that the checks use."""

    n_max: int = 8
    logprobs_max: int = 20
    grammar_bytes_max: int = 64 << 10
    tools_max: int = 128


def check(endpoint: Endpoint, document: Mapping[str, Any], bounds: Bounds) -> None:
    """Raise `UnknownField` or `BadField` for the first field at fault; nothing when all may pass."""
    table = TABLES[endpoint]
    for name, value in document.items():
        rule = table.get(name)
        if rule is None:
            if name in REFUSED:
                raise UnknownField(f"`{name}` is not taken here: {REFUSED[name]}", param=name)
            raise UnknownField(f"Unknown parameter: '{name[:100]}'.", param=name[:100])
        if value is not None:
            rule(name, value, bounds)


def _any(name: str, value: Any, bounds: Bounds) -> None:
    pass


def _bool(name: str, value: Any, bounds: Bounds) -> None:
    if value is not True and value is not False:
        raise _wrong(name, value, "a boolean")


def _text(name: str, value: Any, bounds: Bounds) -> None:
    if type(value) is not str:
        raise _wrong(name, value, "a string")


def _label(name: str, value: Any, bounds: Bounds) -> None:
    _text(name, value, bounds)
    if len(value) > 512:
        raise BadField(f"'{name}' is {len(value)} characters long; 512 are allowed.", param=name)


def _dict(name: str, value: Any, bounds: Bounds) -> None:
    if type(value) is not dict:
        raise _wrong(name, value, "an object")


def _list(name: str, value: Any, bounds: Bounds) -> None:
    if type(value) is not list:
        raise _wrong(name, value, "an array")


def _number(low: float, high: float) -> Check:
    def rule(name: str, value: Any, bounds: Bounds) -> None:
        if type(value) not in (int, float):
            raise _wrong(name, value, "a number")
        if not low <= value <= high:
            raise BadField(f"'{name}' is {value!r}; {low:g} to {high:g} is allowed.", param=name)

    return rule


def _integer(low: int, high: int) -> Check:
    def rule(name: str, value: Any, bounds: Bounds) -> None:
        if type(value) is not int:
            raise _wrong(name, value, "an integer")
        if not low <= value <= high:
            raise BadField(f"'{name}' is {value}; {low} to {high} is allowed.", param=name)

    return rule


def _n(name: str, value: Any, bounds: Bounds) -> None:
    _integer(1, bounds.n_max)(name, value, bounds)


def _logprobs_count(name: str, value: Any, bounds: Bounds) -> None:
    _integer(0, bounds.logprobs_max)(name, value, bounds)


def _stop(name: str, value: Any, bounds: Bounds) -> None:
    if type(value) is str:
        return
    if type(value) is not list or not all(type(part) is str for part in value):
        raise _wrong(name, value, "a string or an array of strings")
    if len(value) > 16:
        raise BadField(f"'{name}' holds {len(value)} strings; 16 are allowed.", param=name)


def _grammar(name: str, value: Any, bounds: Bounds) -> None:
    _dict(name, value, bounds)
    size = len(repr(value))
    if size > bounds.grammar_bytes_max:
        raise BadField(
            f"'{name}' is about {size} bytes large; {bounds.grammar_bytes_max} are allowed: the engine compiles it.",
            param=name,
        )


def _tools(name: str, value: Any, bounds: Bounds) -> None:
    _list(name, value, bounds)
    if len(value) > bounds.tools_max:
        raise BadField(f"'{name}' holds {len(value)} tools; {bounds.tools_max} are allowed.", param=name)
    size = len(repr(value))
    if size > _TOOLS_GRAMMARS * bounds.grammar_bytes_max:
        raise BadField(
            f"'{name}' is about {size} bytes large; {_TOOLS_GRAMMARS * bounds.grammar_bytes_max} are allowed.",
            param=name,
        )


def _metadata(name: str, value: Any, bounds: Bounds) -> None:
    _dict(name, value, bounds)
    if len(value) > 16:
        raise BadField(f"'metadata' has {len(value)} pairs; 16 are allowed.", param=name)
    for key, text in value.items():
        if type(text) is not str:
            raise _wrong(f"metadata.{key[:64]}", text, "a string")
        if len(key) > 64 or len(text) > 512:
            raise BadField("A metadata key may be 64 characters long and its value 512.", param=name)


def _messages(name: str, value: Any, bounds: Bounds) -> None:
    _list(name, value, bounds)
    if not value:
        raise BadField("'messages' is empty; at least one message is needed.", param=name)
    for i, message in enumerate(value):
        if type(message) is not dict or type(message.get("role")) is not str:
            raise _wrong(f"messages.{i}", message, "an object with a `role`")
        content = message.get("content")
        if content is not None and type(content) is not str and type(content) is not list:
            raise _wrong(f"messages.{i}.content", content, "a string or an array of content parts")


def _modalities(name: str, value: Any, bounds: Bounds) -> None:
    if value != ["text"]:
        raise BadField("This gateway answers with text only: 'modalities' may be [\"text\"].", param=name)


def _stream_options(name: str, value: Any, bounds: Bounds) -> None:
    _dict(name, value, bounds)
    for key, flag in value.items():
        if key not in ("include_usage", "include_obfuscation"):
            raise UnknownField(f"Unknown parameter: 'stream_options.{key[:64]}'.", param=f"stream_options.{key[:64]}")
        _bool(f"stream_options.{key}", flag, bounds)


def _prompt(name: str, value: Any, bounds: Bounds) -> None:
    if type(value) not in (str, list):
        raise _wrong(name, value, "a string, an array of strings, or token ids")
    if type(value) is list and value and type(value[0]) is not int and len(value) > bounds.n_max:
        raise BadField(f"'{name}' holds {len(value)} prompts; {bounds.n_max} are allowed in one call.", param=name)


def _wrong(name: str, value: Any, wanted: str) -> BadField:
    found = {type(None): "null", bool: "a boolean", int: "an integer", float: "a number", str: "a string"}.get(
        type(value), "an array" if type(value) is list else "an object"
    )
    return BadField(f"Invalid type for '{name}': expected {wanted}, but got {found} instead.", param=name)


def _bias(name: str, value: Any, bounds: Bounds) -> None:
    _dict(name, value, bounds)
    if len(value) > 1024:
        raise BadField(f"'{name}' has {len(value)} entries; 1024 are allowed.", param=name)


def _token_ids(name: str, value: Any, bounds: Bounds) -> None:
    _list(name, value, bounds)
    if len(value) > 256 or not all(type(part) is int for part in value):
        raise BadField(f"'{name}' must be an array of up to 256 token ids.", param=name)


#: All tools of a request together may be as large as so many grammars.
_TOOLS_GRAMMARS = 8
_TOKENS = _integer(1, 1 << 24)
_PENALTY = _number(-2, 2)

#: Taken by every text endpoint. The second half is vLLM's own; the README states the list.
_SAMPLING: dict[str, Check] = {
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    "logit_bias": _bias,
    "max_tokens": _TOKENS,
    "n": _n,
    "seed": _integer(-(1 << 63), (1 << 63) - 1),
    "stop": _stop,
    "stream": _bool,
    "stream_options": _stream_options,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "bad_words": _stop,
    "ignore_eos": _bool,
    "include_stop_str_in_output": _bool,
    "length_penalty": _number(-10, 10),
    "min_p": _number(0, 1),
    "min_tokens": _integer(0, 1 << 20),
    "repetition_penalty": _number(0.01, 10),
    "skip_special_tokens": _bool,
    "spaces_between_special_tokens": _bool,
    "stop_token_ids": _token_ids,
    "structured_outputs": _grammar,
    "top_k": _integer(-1, 1 << 20),
}

#: Ours: read by the gateway, never seen by the engine.
OURS: dict[str, Check] = {
    "metadata": _metadata,
    "model": _text,
    "prompt_cache_key": _label,
    "prompt_cache_retention": _label,
    "safety_identifier": _label,
    "service_tier": _label,
    "store": _bool,
    "user": _label,
}

TABLES: dict[Endpoint, dict[str, Check]] = {
    "chat": _SAMPLING
    | OURS
    | {
        "logprobs": _bool,
        "max_completion_tokens": _TOKENS,
        "messages": _messages,
        "modalities": _modalities,
        "parallel_tool_calls": _bool,
        "reasoning_effort": _text,
        "response_format": _grammar,
        "tool_choice": _any,
        "tools": _tools,
        "top_logprobs": _logprobs_count,
        "verbosity": _text,
    },
    "completions": _SAMPLING
    | OURS
    | {
        "best_of": _n,
        "echo": _bool,
        "logprobs": _logprobs_count,
        "prompt": _prompt,
        "prompt_logprobs": _logprobs_count,
        "response_format": _grammar,
        "suffix": _text,
    },
    "responses": OURS
    | {
        "include": _list,
        "input": _any,
        "instructions": _text,
        "max_output_tokens": _TOKENS,
        "parallel_tool_calls": _bool,
        "reasoning": _dict,
        "stream": _bool,
        "temperature": _number(0, 2),
        "text": _grammar,
        "tool_choice": _any,
        "tools": _tools,
        "top_logprobs": _logprobs_count,
        "top_p": _number(0, 1),
        "truncation": _text,
    },
    "embeddings": {"model": _text, "user": _label, "input": _any, "encoding_format": _text, "dimensions": _TOKENS},
}
