"""The engine that serves the embedded base, as `graftline up` starts it: quantized, with our plugin. Light.

It is started as a program of the gateway's, and asked over HTTP on its socket.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from training.base import NAME
from training.base.domain import Message
from training.base.evaluate import ANSWER_TOKENS_MAX

AT_ONCE: Final = 48
_START_S, _STOP_S, _ANSWER_S = 600.0, 30.0, 300.0
_TRIES = 3


class NoEngine(Exception):
    """The engine did not start, or did not take what it was given; its log says more."""

    code = "no_engine"
    retryable = True


class Engine:
    """A running engine; an adapter is known to it by a name."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._turn = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def holding(self, folder: Path) -> AsyncIterator[str]:
        """The name by which the adapter in `folder` answers meanwhile. Raises NoEngine."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        await self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        try:
            yield name
        finally:
            await self._ask("/v1/unload_lora_adapter", {"lora_name": name})

    async def said(self, model: str, chats: Sequence[Sequence[Message]]) -> list[str]:
        """The greedy answer to each chat."""

        async def one(chat: Sequence[Message]) -> str:
            body = {"model": model, "messages": chat, "temperature": 0, "max_tokens": ANSWER_TOKENS_MAX}
            async with self._turn:
                answer = await self._ask("/v1/chat/completions", body)
            return str(answer.json()["choices"][0]["message"]["content"] or "").strip()

        return list(await asyncio.gather(*map(one, chats)))

    async def logprobs(self, model: str, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """The log probability of each prompt's tokens from the second on."""
        return [await self._row(model, prompt) for prompt in prompts]

    async def _row(self, model: str, prompt: Sequence[int]) -> list[float]:
        body = {"model": model, "prompt": list(prompt), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        answer = await self._ask("/v1/completions", {**body, "cache_salt": uuid.uuid4().hex})
        found: list[Mapping[str, Any]] = answer.json()["choices"][0]["prompt_logprobs"][1:]
        return [float(next(iter(at.values()))["logprob"]) for at in found]

    async def _ask(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        for left in reversed(range(_TRIES)):
            try:
                answer = await self._http.post(path, json=body)
                break
            except httpx.TransportError as error:  # a connection that was kept for too long, most likely
                if not left:
                    raise NoEngine(f"{path} was not answered: {error!r}") from error
                await asyncio.sleep(1.0)
        if answer.status_code != 200:
            raise NoEngine(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        return answer


@asynccontextmanager
async def engine(base: Path, folder: Path, log: Path) -> AsyncIterator[Engine]:
    """Start it, with its socket in `folder`, a short path; it is gone when this ends. Raises NoEngine."""
    listens_on = folder / "engine.sock"
    limits = httpx.Limits(max_connections=AT_ONCE + 8)
    transport = httpx.AsyncHTTPTransport(uds=str(listens_on), limits=limits)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=_ANSWER_S) as http:
        with _started(base, listens_on, log) as process:
            until = time.monotonic() + _START_S
            while not await _healthy(http):
                if process.poll() is not None or time.monotonic() > until:
                    raise NoEngine(f"vLLM did not become healthy (exit {process.poll()}): {_tail(log)}")
                await asyncio.sleep(0.25)
            yield Engine(http)


@contextmanager
def _started(base: Path, listens_on: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "gateway.engines.process.alone", "--base", str(base), "--name", NAME]
    ours, theirs = socket.socketpair()
    with ours, log.open("ab") as out:
        with theirs:
            argv += ["--socket", str(listens_on)]
            process = subprocess.Popen(argv, stdin=theirs.fileno(), stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                ours.close()  # its keeper kills whatever is left
                process.wait(_STOP_S)


async def _healthy(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health")).status_code == 200
    except httpx.HTTPError:
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
