"""What a check works with: the engine under test over raw HTTP, marker adapters on disk, the engine's log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from gateway.engines.vllm import Vllm

CONCURRENCY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a check saw, in a few words, and whether it is what we rely on."""

    text: str
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One behaviour. `expected` is what we rely on, in the words of the table."""

    behaviour: str
    expected: str
    run: Callable[[Bench], Awaitable[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """An adapter that answers every prompt with its own word; `name` is its name in the engine."""

    name: str
    word: str
    folder: Path


@dataclass(slots=True, kw_only=True)
class Bench:
    """The engine under test. Raw HTTP where the engine's very words count, `vllm` where the product's reading does."""

    http: httpx.AsyncClient
    vllm: Vllm
    base: str
    slots: int
    device: str
    markers: tuple[Marker, ...]
    folder: Path
    log: Path
    pid: Callable[[], int | None]
    fresh: Iterable[Marker] = field(default_factory=tuple)

    async def load(self, name: str, folder: Path | str) -> httpx.Response:
        return await self.http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})

    async def unload(self, name: str) -> httpx.Response:
        return await self.http.post("/v1/unload_lora_adapter", json={"lora_name": name})

    async def chat(self, model: str, question: str, **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json=chat_body(model, question, fields))

    async def say(self, model: str, question: str, **fields: Any) -> str:
        """The text of a greedy answer; any refusal is a `RuntimeError` with the engine's words."""
        answer = await self.chat(model, question, **fields)
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:200]}")
        return str(answer.json()["choices"][0]["message"]["content"])

    async def together(self, asked: Iterable[tuple[str, str]]) -> list[str]:
        """Answers to (model, question) pairs, `CONCURRENCY` at a time, in the order asked."""
        gate = asyncio.Semaphore(CONCURRENCY)

        async def one(model: str, question: str) -> str:
            async with gate:
                return await self.say(model, question, max_tokens=24)

        return await asyncio.gather(*(one(model, question) for model, question in asked))

    @asynccontextmanager
    async def streaming(self, model: str, question: str, **fields: Any) -> AsyncIterator[AsyncIterator[str]]:
        """The `data:` payloads of a stream, as they come."""
        body = chat_body(model, question, {"stream": True} | fields)
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code}: {(await answer.aread())[:200]!r}")
            yield (line[6:] async for line in answer.aiter_lines() if line.startswith("data: "))

    def new_marker(self) -> Marker:
        """An adapter under a name and digest that this engine has never seen."""
        return next(self.fresh)  # type: ignore[call-overload,no-any-return]


def chat_body(model: str, question: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24, **fields}


def text_of(event: str) -> str:
    """The text that a chat chunk adds."""
    choices = orjson.loads(event)["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""


async def eventually(true: Callable[[], Awaitable[bool]], seconds: float) -> float | None:
    """Seconds until `true`, asked again and again; None when it never was."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if await true():
            return time.monotonic() - began
        await asyncio.sleep(0.01)
    return None


def error_of(answer: httpx.Response) -> Mapping[str, Any]:
    """The `error` object of a refusal; empty for any other answer."""
    try:
        found = answer.json()["error"]
    except (ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def told(answer: httpx.Response) -> str:
    """A refusal or a success in a few words."""
    return f"{answer.status_code} {' '.join(str(error_of(answer).get('message') or answer.text).split())[:90]}"
