"""Asks an endpoint over OpenAI's HTTP: answers, likelihoods, token ids. Only this file knows paths and bodies.

What cannot be asked (a row too long) comes back as `Unasked`; an endpoint that fails is asked again, and then so too. A
model that is not there, or a key that is not taken, ends the evaluation: `EngineAway`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from training.data.values import Message
from training.evaluation.errors import EngineAway
from training.evaluation.kept import Kept
from training.evaluation.rows import Likelihood, Tokens
from training.evaluation.values import Endpoint

#: How vLLM, and our plugin in it, say that a model's numbers are none.
_NOT_FINITE: Final = ("Out of range float", "graftline_nan")
_AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FATAL: Final = frozenset({401, 403, 404})
_WAIT_S, _WAIT_MAX_S = 0.25, 8.0
_SAID_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Unasked:
    """Nothing came, and why: `too_long`, `refused`, `not_finite` or `away`."""

    why: str
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer; `cut` when it met the limit of tokens."""

    text: str
    tokens: int
    cut: bool


class Asker:
    """One endpoint. Use it within `async with`; every method may raise EngineAway."""

    def __init__(
        self, who: str, endpoint: Endpoint, kept: Kept, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`who` parts what this endpoint answered from what another one did."""
        self._who = who
        self._endpoint = endpoint
        self._kept = kept
        root, transport = _place(endpoint.url, transport)
        key = endpoint.key.get_secret_value()
        self._client = httpx.AsyncClient(
            base_url=root,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(endpoint.timeout_s, connect=min(10.0, endpoint.timeout_s)),
            limits=httpx.Limits(max_connections=endpoint.at_once),
            transport=transport,
            trust_env=False,
        )
        self._gate = asyncio.Semaphore(endpoint.at_once)

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def models(self) -> frozenset[str]:
        """What the endpoint can be asked for."""
        answer = await self._call("GET", "/v1/models", None)
        if isinstance(answer, Unasked):
            raise EngineAway(f"{self._endpoint.url} does not say which models it has ({answer.why}): {answer.words}")
        try:
            return frozenset(str(each["id"]) for each in answer["data"])
        except (KeyError, TypeError) as problem:
            raise self._odd("/v1/models") from problem

    async def answer(self, model: str, prompt: Sequence[Message], *, tokens_max: int) -> Said | Unasked:
        """The greedy answer to a conversation."""
        body = {
            "model": model,
            "messages": [{"role": each.role, "content": each.content} for each in prompt],
            "max_tokens": tokens_max,
            "temperature": 0,
        }
        if (known := self._kept.get(self._who, body)) is not None:
            return Said(text=known[0], tokens=known[1], cut=known[2])
        answer = await self._call("POST", "/v1/chat/completions", body)
        if isinstance(answer, Unasked):
            return answer
        try:
            choice = answer["choices"][0]
            tokens = (answer.get("usage") or {}).get("completion_tokens") or 0
            found = Said(
                text=choice["message"]["content"] or "", tokens=int(tokens), cut=choice["finish_reason"] == "length"
            )
        except (KeyError, IndexError, TypeError) as problem:
            raise self._odd("/v1/chat/completions") from problem
        self._kept.put(self._who, body, [found.text, found.tokens, found.cut])
        return found

    async def likelihood(self, model: str, tokens: Tokens) -> Likelihood | Unasked:
        """Of the tokens whose mask is 1; the first of all has none, for nothing stands before it."""
        counted = [at for at, on in enumerate(tokens.mask) if on and at]
        if not counted:
            return Unasked(why="refused", words="no token counts")
        body = {"model": model, "prompt": list(tokens.ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        key = {**body, "counted": counted}
        if (known := self._kept.get(self._who, key)) is not None:
            return Likelihood(total=known[0], tokens=known[1])
        answer = await self._call("POST", "/v1/completions", body)
        if isinstance(answer, Unasked):
            return answer
        try:
            found = answer["choices"][0]["prompt_logprobs"]
            logprobs = [found[at][str(tokens.ids[at])]["logprob"] for at in counted]
        except (KeyError, IndexError, TypeError) as problem:
            raise self._odd("/v1/completions") from problem
        if not all(isinstance(each, int | float) and math.isfinite(each) for each in logprobs):
            return Unasked(why="not_finite")
        made = Likelihood(total=float(sum(logprobs)), tokens=len(counted))
        self._kept.put(self._who, key, [made.total, made.tokens])
        return made

    async def tokens(self, model: str, prompt: Sequence[Message], answer: str) -> Tokens | Unasked:
        """A conversation and its answer as the server's template writes them; the answer counts.

        `refused` where the template writes the question otherwise once it is answered.
        """
        said = [{"role": each.role, "content": each.content} for each in prompt]
        whole = [*said, {"role": "assistant", "content": answer}]
        before = await self._tokenize({"model": model, "messages": said, "add_generation_prompt": True})
        after = await self._tokenize({"model": model, "messages": whole, "add_generation_prompt": False})
        if isinstance(before, Unasked) or isinstance(after, Unasked):
            return before if isinstance(before, Unasked) else after  # type: ignore[return-value]
        if after[: len(before)] != before or len(after) == len(before):
            return Unasked(why="refused", words="the template writes a question otherwise once it is answered")
        return Tokens(ids=tuple(after), mask=(0,) * len(before) + (1,) * (len(after) - len(before)))

    async def text(self, model: str, text: str) -> Tokens | Unasked:
        """A plain text's tokens, all of which count."""
        ids = await self._tokenize({"model": model, "prompt": text})
        return ids if isinstance(ids, Unasked) else Tokens(ids=tuple(ids), mask=(1,) * len(ids))

    async def _tokenize(self, body: dict[str, Any]) -> list[int] | Unasked:
        answer = await self._call("POST", "/tokenize", body)
        if isinstance(answer, Unasked):
            return answer
        try:
            return [int(each) for each in answer["tokens"]]
        except (KeyError, TypeError, ValueError) as problem:
            raise self._odd("/tokenize") from problem

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """The answer's JSON, or `Unasked`."""
        async with self._gate:
            return await self._tried(method, path, orjson.dumps(body) if body is not None else b"")

    async def _tried(self, method: str, path: str, raw: bytes) -> Any:
        words = ""
        for attempt in range(self._endpoint.tries):
            if attempt:
                await asyncio.sleep(min(_WAIT_MAX_S, _WAIT_S * 4 ** (attempt - 1)))
            try:
                answer = await self._client.request(
                    method, path, content=raw, headers={"content-type": "application/json"}
                )
            except httpx.HTTPError as problem:
                words = f"{type(problem).__name__}: {problem}"
                continue
            if answer.status_code == 200:
                try:
                    return orjson.loads(answer.content)
                except orjson.JSONDecodeError as problem:
                    raise self._odd(path) from problem
            words = answer.text[:_SAID_MAX]
            if answer.status_code in _FATAL:
                raise EngineAway(f"{self._endpoint.url}{path} answers {answer.status_code}: {words}")
            if any(mark in words for mark in _NOT_FINITE):
                return Unasked(why="not_finite", words=words)
            if answer.status_code not in _AGAIN:
                return Unasked(why="too_long" if "context length" in words else "refused", words=words)
        return Unasked(why="away", words=words)

    def _odd(self, path: str) -> EngineAway:
        return EngineAway(f"{self._endpoint.url} answers {path} as no engine that we know does.")


def _place(url: str, transport: httpx.AsyncBaseTransport | None) -> tuple[str, httpx.AsyncBaseTransport | None]:
    """The root that paths are put behind, and how to get there."""
    if url.startswith("unix:"):
        return "http://engine", transport or httpx.AsyncHTTPTransport(uds=url.removeprefix("unix:"))
    return url.rstrip("/").removesuffix("/v1"), transport
