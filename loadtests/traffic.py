"""Clients that keep asking, and a ledger of what each of them saw."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its client saw it: `began`, `first` and `ended` are unix times, `first` that of the first byte.

    `error` is a code, or what broke; `adapter` is what the answer's head says, `tokens` what its usage says.
    """

    id: str
    ended: float
    status: int
    error: str = ""
    text: str = ""
    adapter: str = ""
    model: str = ""
    began: float = 0.0
    first: float = 0.0
    tokens: int = 0

    @property
    def good(self) -> bool:
        return self.status == 200 and not self.error


@dataclass
class Traffic:
    """`clients` threads that send one request after another until `stop`.

    `pick` gives fields of each request that differ from `body`, the model say; it is called by all threads in turn.
    """

    port: int
    key: str
    body: dict[str, Any]
    clients: int = 8
    pause_s: float = 0.0
    pick: Callable[[], Mapping[str, Any]] | None = None
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop, self._picking = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(self.clients)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def wait(self, count: int, timeout_s: float = 60) -> None:
        """Until `count` more requests have ended."""
        goal, until = len(self.seen) + count, time.monotonic() + timeout_s
        while len(self.seen) < goal:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(self.seen)} of {goal} requests ended")
            time.sleep(0.01)

    def once(self, fields: Mapping[str, Any]) -> Seen:
        """One request now, on a connection of its own; in no ledger."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            return ask(connection, self.key, self.body | dict(fields))
        finally:
            connection.close()

    def since(self, moment: float) -> list[Seen]:
        return [one for one in self.seen if one.ended >= moment]

    def _client(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        turn = 0
        while not self._stop.is_set():
            turn += 1
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
            began = time.time()
            try:
                self.seen.append(ask(connection, self.key, self._next() | {"user": f"{number}-{turn}"}))
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.seen.append(Seen("", time.time(), 0, repr(error), began=began))
                connection.close()
                connection = None
                time.sleep(0.02)
            pause_s = self.pause_s if self.seen[-1].status == 200 else max(self.pause_s, 0.05)
            if pause_s:
                time.sleep(pause_s)
        if connection is not None:
            connection.close()

    def _next(self) -> dict[str, Any]:
        if self.pick is None:
            return self.body
        with self._picking:
            return self.body | dict(self.pick())


def ask(connection: http.client.HTTPConnection, key: str, body: dict[str, Any]) -> Seen:
    """One chat request, streamed or not, read to its end."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    model, began = str(body.get("model")), time.time()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    adapter = answer.headers.get("x-graftline-adapter", "")
    data = answer.readline()
    first = time.time()
    data += answer.read()
    seen = partial(
        Seen, ended=time.time(), status=answer.status, adapter=adapter, model=model, began=began, first=first
    )
    if answer.status != 200:
        return seen("", error=str(json.loads(data)["error"]["code"]))
    if not body.get("stream"):
        document = json.loads(data)
        text = document["choices"][0]["message"]["content"] or ""
        return seen(document["id"], text=text, tokens=document["usage"]["completion_tokens"])
    events = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        return seen("", error="cut without a word")
    parts = [json.loads(event) for event in events[:-1]]
    error = next((part["error"]["code"] for part in parts if "error" in part), "")
    found = next((part["id"] for part in parts if "id" in part), "")
    texts = [c["delta"].get("content") or "" for part in parts for c in part.get("choices", ())]
    counted = next((part["usage"]["completion_tokens"] for part in reversed(parts) if part.get("usage")), None)
    return seen(found, error=error, text="".join(texts), tokens=counted or sum(map(bool, texts)))
