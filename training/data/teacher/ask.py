"""The teacher: an endpoint that speaks OpenAI's chat completions. What it said is kept, so nothing is asked twice."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import orjson

from training.data.errors import TeacherAway

Chat = Sequence[dict[str, str]]
_TRIES = 4
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class Teacher(Protocol):
    """Who is asked. The same chat always has the same answer."""

    @property
    def model(self) -> str: ...

    def said(self, chats: Sequence[Chat]) -> list[str]:
        """An answer to each chat; empty where there is none. Raises TeacherAway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A teacher by URL. `kept` is a file of what it said so far; a run that was killed goes on from there."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    kept: Path | None = None
    at_once: int = 4
    timeout_s: float = 60.0
    tokens_max: int = 512
    temperature: float = 0.7
    seed: int = 0
    sleep: Callable[[float], None] = time.sleep
    transport: httpx.BaseTransport | None = None

    def said(self, chats: Sequence[Chat]) -> list[str]:
        known = self._known()
        missing = {name: chat for chat in chats if (name := self._name(chat)) not in known}
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        with (
            httpx.Client(headers=headers, timeout=self.timeout_s, transport=self.transport) as client,
            ThreadPoolExecutor(self.at_once) as pool,
        ):
            found = pool.map(lambda each: (each[0], self._one(client, each[1])), missing.items())
            for name, text in found:
                known[name] = text
                self._keep(name, text)
        return [known[self._name(chat)] for chat in chats]

    def _one(self, client: httpx.Client, chat: Chat) -> str:
        body = {
            "model": self.model, "messages": list(chat), "temperature": self.temperature, "seed": self.seed,
            "max_tokens": self.tokens_max,
        }  # fmt: skip
        why = ""
        for attempt in range(_TRIES):
            if attempt:
                self.sleep(2.0**attempt)
            try:
                answer = client.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
            except httpx.HTTPError as problem:
                why = f"{type(problem).__name__}: {problem}"
                continue
            if answer.status_code == 200:
                return _text(answer.content)
            why = f"status {answer.status_code}: {answer.text[:200]}"
            if answer.status_code not in _RETRIED:
                break
        raise TeacherAway(self.url, why)

    def _name(self, chat: Chat) -> str:
        asked = [self.model, self.temperature, self.seed, self.tokens_max, list(chat)]
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def _known(self) -> dict[str, str]:
        if self.kept is None or not self.kept.is_file():
            return {}
        known: dict[str, str] = {}
        for line in self.kept.read_bytes().splitlines():
            try:
                known.update(orjson.loads(line))
            except orjson.JSONDecodeError:
                continue  # the end of a file whose writer was killed
        return known

    def _keep(self, name: str, text: str) -> None:
        if self.kept is not None:
            with self.kept.open("ab") as file:
                file.write(orjson.dumps({name: text}) + b"\n")


def _text(body: bytes) -> str:
    """The answer's text; empty where it was cut off, refused, or is of another form."""
    try:
        choice: Any = orjson.loads(body)["choices"][0]
        text = choice["message"]["content"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return ""
    return text.strip() if isinstance(text, str) and choice.get("finish_reason") in (None, "stop") else ""
