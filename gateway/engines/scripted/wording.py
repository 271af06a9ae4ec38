"""The bytes of vLLM 0.32: answers, stream events, errors, cards and metrics, key for key as recorded. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Kind = Literal["chat", "completions"]

DONE = b"data: [DONE]\n\n"
FINGERPRINT = "vllm-0.32.0-scripted"
CORE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
NOT_FOUND = b'{"detail":"Not Found"}'
BAD_BODY = b'{"detail":"There was an error parsing the body"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the wording of an answer depends on."""

    kind: Kind
    id: str
    created: int
    model: str
    prompt_tokens: int
    logprobs: bool = False
    prompt_logprobs: bool = False


def error(status: int, kind: str, message: str, param: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}})


def stream_error(message: str) -> bytes:
    """In-band errors go through `json.dumps`, so they have spaces that nothing else has."""
    return (
        b'data: {"error": {"message": %b, "type": "InternalServerError", "param": null, "code": 500}}\n\n'
        % orjson.dumps(message)
    )


def logprob(model: str, at: int, token: str) -> float:
    """A number that depends on the model and the token, so that adapters are told apart by it."""
    bytes_of = model.rpartition("@")[2]  # the gateway's names end with the digest: equal bytes answer alike
    return -(zlib.crc32(f"{bytes_of}\0{at}\0{token}".encode()) % 5000) / 1000 - 0.001


def usage(prompt_tokens: int, tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + tokens,
        "completion_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": 0},
    }


def whole(asked: Asked, texts: Sequence[Sequence[str]], finish: str, prompt: Sequence[str]) -> bytes:
    """An answer in one piece; `texts` holds the tokens of each choice."""
    counted = usage(asked.prompt_tokens, sum(map(len, texts)))
    counted["prompt_tokens_details"]["multimodal_tokens"] = None
    document = {
        "id": asked.id,
        "object": "chat.completion" if asked.kind == "chat" else "text_completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [_choice(asked, index, tokens, finish, prompt) for index, tokens in enumerate(texts)],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": counted | {"completion_tokens_details": None},
    }
    if asked.kind == "chat":
        document |= {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    return orjson.dumps(document | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None})


def _choice(asked: Asked, index: int, tokens: Sequence[str], finish: str, prompt: Sequence[str]) -> dict[str, Any]:
    text = "".join(tokens)
    logprobs = _logprobs(asked, 0, tokens)
    end = {"finish_reason": finish, "stop_reason": None, "token_ids": None}
    if asked.kind == "chat":
        message = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        return {"index": index, "message": message, "logprobs": logprobs, **end, "routed_experts": None}
    before = None
    if asked.prompt_logprobs:
        before = [
            None,
            *(
                {str(at): {"logprob": logprob(asked.model, at, t), "rank": 1, "decoded_token": t}}
                for at, t in enumerate(prompt[1:], 1)
            ),
        ]
    tail = {"prompt_logprobs": before, "prompt_token_ids": None, "routed_experts": None}
    return {"index": index, "text": text, "logprobs": logprobs, **end, **tail}


def first_events(asked: Asked, n: int) -> list[bytes]:
    """Chat streams begin with the role of every choice; completions with nothing."""
    if asked.kind != "chat":
        return []
    return [
        _event(
            asked,
            [{"index": i, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}],
            {"prompt_token_ids": None, "prompt_text": None},
        )
        for i in range(n)
    ]


def token_event(asked: Asked, index: int, at: int, token: str, finish: str | None, last: bool) -> bytes:
    """One token; `last` says that no usage event follows, so this one carries the fingerprint."""
    logprobs = _logprobs(asked, at, [token])
    choice: dict[str, Any]
    if asked.kind == "chat":
        choice = {"index": index, "delta": {"content": token}, "logprobs": logprobs, "finish_reason": finish}
        if finish:
            choice["stop_reason"] = None
        choice["token_ids"] = None
    else:
        choice = {"index": index, "text": token, "logprobs": logprobs, "finish_reason": finish, "stop_reason": None}
        choice |= {"prompt_token_ids": None, "token_ids": None}
    return _event(asked, [choice], {"system_fingerprint": FINGERPRINT} if last else {})


def usage_event(asked: Asked, tokens: int) -> bytes:
    return _event(asked, [], {"usage": usage(asked.prompt_tokens, tokens), "system_fingerprint": FINGERPRINT})


def _event(asked: Asked, choices: list[dict[str, Any]], tail: dict[str, Any]) -> bytes:
    document = {
        "id": asked.id,
        "object": "chat.completion.chunk" if asked.kind == "chat" else "text_completion",
        "created": asked.created,
        "model": asked.model,
        "choices": choices,
        **tail,
    }
    return b"data: " + orjson.dumps(document) + b"\n\n"


def _logprobs(asked: Asked, at: int, tokens: Sequence[str]) -> dict[str, Any] | None:
    if not asked.logprobs:
        return None
    values = [logprob(asked.model, at + i, token) for i, token in enumerate(tokens)]
    if asked.kind == "chat":
        return {
            "content": [
                {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
                for token, value in zip(tokens, values, strict=True)
            ]
        }
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    top = [{token: value} for token, value in zip(tokens, values, strict=True)]
    return {"text_offset": offsets, "token_logprobs": values, "tokens": list(tokens), "top_logprobs": top}


def models(base: str, max_model_len: int, adapters: dict[str, str], now: int) -> bytes:
    cards = [_card(base, None, "/models/base", max_model_len, now)]
    cards += [_card(name, base, path, None, now) for name, path in adapters.items()]
    return orjson.dumps({"object": "list", "data": cards})


def _card(name: str, parent: str | None, root: str, max_model_len: int | None, now: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
        "permission": [],
    }


def metrics(base: str, started_at: float, values: dict[str, float]) -> bytes:
    lines = [f"process_start_time_seconds {started_at}"]
    lines += [f'vllm:{name}{{engine="0",model_name="{base}"}} {float(value)}' for name, value in values.items()]
    return "\n".join(lines).encode() + b"\n"
