"""vLLM's HTTP: the only file that knows its paths, its bodies and the way it words errors (0.32, `make engine-check`).

An engine knows adapters by one immutable name each (`name@digest`), so loading a name twice is loading the same bytes.
"""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.engines.errors import EngineBroke, EnginePoisoned, EngineRefused
from gateway.engines.refusals import translate
from gateway.engines.upstream import Answer, Upstream

#: A list of 4,000 adapters is 1.8 MB.
_BYTES_MAX = 32 << 20
_CONTROL_TIMEOUT_S = 30.0
_HEALTH_TIMEOUT_S = 5.0
#: Reading a large adapter from a slow disk happens inside the call.
_LOAD_TIMEOUT_S = 120.0
_PROBE_TIMEOUT_S = 120.0

_SERIES = re.compile(rb"^([a-z_:]+)(?:\{[^\n]*\})? ([^ \n]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine says of itself. `max_model_len` is in tokens."""

    model: str
    max_model_len: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The few numbers of vLLM's that we use, summed over its engine cores; 0 where it has none.

    `started_at` (unix seconds) changes with every restart, by which the fleet knows that all adapters are gone.
    `corrupted` counts answers with NaN logits, if the engine counts them.
    """

    started_at: float
    running: int
    waiting: int
    kv_cache_used: float
    prompt_tokens: int
    generation_tokens: int
    preemptions: int
    corrupted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A greedy answer and its natural-log probabilities; `finite` is False when there was a NaN or infinity in them.

    `prompt_logprobs` holds those of the prompt's tokens from the second on: the same tokens whichever model is asked,
    so two models can be compared by them.
    """

    finite: bool
    contained: bool = False  # not finite, and the engine kept it from everything else
    text: str = ""
    #: The answer's token ids.
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    prompt_logprobs: tuple[float, ...] = ()


class Vllm:
    """One engine. Every method may raise `EngineUnreachable`, `EngineBroke` or `EngineTimeout`."""

    def __init__(self, name: str, url: str, *, connect_timeout_s: float = 5.0) -> None:
        """`url` is `http://…`, `https://…` or `unix:/path`; `ValueError` if it is none of them."""
        self.name = name
        self.url = url
        self._upstream = Upstream(url, name=name, connect_timeout_s=connect_timeout_s)

    async def close(self) -> None:
        """Drop every connection, answers in progress included."""
        self._upstream.close()
        await asyncio.sleep(0)  # lets the sockets close

    async def healthy(self) -> bool:
        """Whether the engine's core is alive; an engine that cannot be asked raises."""
        status, _ = await self._call("GET", "/health", timeout_s=_HEALTH_TIMEOUT_S)
        return status == 200

    async def describe(self) -> EngineInfo:
        models = await self._get("/v1/models")
        version = await self._get("/version")
        try:
            bases = [card for card in models["data"] if card["parent"] is None]
            return EngineInfo(
                model=bases[0]["id"], max_model_len=int(bases[0]["max_model_len"]), version=str(version["version"])
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._odd("/v1/models") from error

    async def adapters(self) -> frozenset[str]:
        """Names of the adapters that the engine knows now; any of them answers without a reload from us."""
        models = await self._get("/v1/models")
        try:
            return frozenset(card["id"] for card in models["data"] if card["parent"] is not None)
        except (KeyError, TypeError) as error:
            raise self._odd("/v1/models") from error

    async def load(self, name: str, path: str) -> float:
        """Make the adapter in the folder `path` (on the engine's machine) answer to `name`; returns seconds taken.

        When this returns the adapter is resident. A name that is there already counts as success. Raises
        `EngineRefused` with `code` `adapter_path_not_found` or `adapter_refused`.
        """
        began = asyncio.get_running_loop().time()
        body = orjson.dumps({"lora_name": name, "lora_path": path})
        status, answer = await self._call("POST", "/v1/load_lora_adapter", body, timeout_s=_LOAD_TIMEOUT_S)
        if status != 200 and not (status == 400 and b"has already been loaded" in answer):
            raise self.refusal(status, answer, "/v1/load_lora_adapter")
        return asyncio.get_running_loop().time() - began

    async def unload(self, name: str) -> None:
        """Forget `name`; requests in progress finish on it. Raises `AdapterMissing` if the engine does not know it."""
        body = orjson.dumps({"lora_name": name})
        status, answer = await self._call("POST", "/v1/unload_lora_adapter", body, timeout_s=_CONTROL_TIMEOUT_S)
        if status != 200:
            raise self.refusal(status, answer, "/v1/unload_lora_adapter")

    async def tokenize(self, model: str, turn: str) -> tuple[int, ...]:
        """The ids of a user's turn as the base's chat template writes it, ready for an answer. Raises `EngineRefused`,
        for one when the base has no template."""
        body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": turn}]})
        status, answer = await self._call("POST", "/tokenize", body, timeout_s=_CONTROL_TIMEOUT_S)
        if status != 200:
            raise self.refusal(status, answer, "/tokenize")
        try:
            return tuple(map(int, orjson.loads(answer)["tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self._odd("/tokenize") from error

    async def probe(self, model: str, prompt: str | Sequence[int], *, tokens: int = 8) -> Probe:
        """Ask for `tokens` greedy tokens after `prompt` (text or token ids, two tokens long at least), with every log
        probability.

        A salt of its own keeps it from reading, or leaving, anything in the prefix cache. Raises `EngineRefused` and
        `AdapterMissing`; numbers that are not finite are an answer, not an error.
        """
        body = {
            "model": model,
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "logprobs": 0,
            "prompt_logprobs": 0,
            "return_token_ids": True,
            "cache_salt": uuid.uuid4().hex,
        }
        status, answer = await self._call("POST", "/v1/completions", orjson.dumps(body), timeout_s=_PROBE_TIMEOUT_S)
        if status == 400 and b"Out of range float values" in answer:
            return Probe(finite=False)
        if status != 200:
            refused = self.refusal(status, answer, "/v1/completions")
            if isinstance(refused, EnginePoisoned):
                return Probe(finite=False, contained=refused.contained)
            raise refused
        try:
            return _probe(orjson.loads(answer)["choices"][0])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._odd("/v1/completions") from error

    async def weigh(self, model: str, prompt: Sequence[int], token: int) -> float:
        """The log probability of `token` as the next one after `prompt`, as the engine samples it: the token is the
        only one allowed, and the number is taken before that. NaN where it is no number. Raises as `probe`."""
        body = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 0,
            "allowed_token_ids": [token],
            "cache_salt": uuid.uuid4().hex,
        }
        status, answer = await self._call("POST", "/v1/completions", orjson.dumps(body), timeout_s=_PROBE_TIMEOUT_S)
        if status != 200:
            raise self.refusal(status, answer, "/v1/completions")
        try:
            (found,) = orjson.loads(answer)["choices"][0]["logprobs"]["token_logprobs"]
            return math.nan if found is None else float(found)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._odd("/v1/completions") from error

    async def generate(
        self, path: str, body: bytes, request_id: str, *, head_timeout_s: float, stall_timeout_s: float = 120.0
    ) -> Answer:
        """Send an inference request; the answer may carry any status, see `refusal`.

        The completion's id becomes `chatcmpl-` or `cmpl-` and `request_id`; `/v1/responses` makes up its own.
        """
        return await self._upstream.request(
            "POST",
            path,
            body,
            ((b"x-request-id", request_id.encode()),),
            head_timeout_s=head_timeout_s,
            stall_timeout_s=stall_timeout_s,
        )

    async def gauges(self) -> Gauges:
        status, answer = await self._call("GET", "/metrics", timeout_s=_CONTROL_TIMEOUT_S)
        if status != 200:
            raise self.refusal(status, answer, "/metrics")
        found: dict[bytes, float] = {}
        for name, value in _SERIES.findall(answer):
            try:
                found[name] = found.get(name, 0.0) + float(value)
            except ValueError as error:
                raise self._odd("/metrics") from error
        return Gauges(
            started_at=found.get(b"process_start_time_seconds", 0.0),
            running=int(found.get(b"vllm:num_requests_running", 0)),
            waiting=int(found.get(b"vllm:num_requests_waiting", 0)),
            kv_cache_used=found.get(b"vllm:kv_cache_usage_perc", 0.0),
            prompt_tokens=int(found.get(b"vllm:prompt_tokens_total", 0)),
            generation_tokens=int(found.get(b"vllm:generation_tokens_total", 0)),
            preemptions=int(found.get(b"vllm:num_preemptions_total", 0)),
            corrupted=int(found.get(b"vllm:corrupted_requests_total", 0)),
        )

    def refusal(self, status: int, body: bytes, path: str = "") -> EngineRefused:
        """An answer that is not 200 as the error that it is, in OpenAI's words; an unknown model: `AdapterMissing`."""
        return translate(self.name, status, body, path)

    # private

    async def _call(self, method: str, path: str, body: bytes = b"", *, timeout_s: float) -> tuple[int, bytes]:
        answer = await self._upstream.request(method, path, body, head_timeout_s=timeout_s, stall_timeout_s=timeout_s)
        try:
            return answer.status, await answer.read(_BYTES_MAX)
        finally:
            answer.close()

    async def _get(self, path: str) -> Any:
        status, answer = await self._call("GET", path, timeout_s=_CONTROL_TIMEOUT_S)
        if status != 200:
            raise self.refusal(status, answer, path)
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            raise self._odd(path) from error

    def _odd(self, path: str) -> EngineBroke:
        return EngineBroke(f"The engine's answer to {path} is not one that vLLM gives.", engine=self.name)


def _probe(choice: dict[str, Any]) -> Probe:
    logprobs = choice["logprobs"]["token_logprobs"]
    prompt = [next(iter(at.values()))["logprob"] for at in choice["prompt_logprobs"][1:]]
    if any(value is None for value in (*logprobs, *prompt)):
        return Probe(finite=False)
    return Probe(
        finite=True,
        text=choice["text"],
        ids=tuple(choice.get("token_ids") or ()),
        tokens=tuple(choice["logprobs"]["tokens"]),
        logprobs=tuple(map(float, logprobs)),
        prompt_logprobs=tuple(map(float, prompt)),
    )
