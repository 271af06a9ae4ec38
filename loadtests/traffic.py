"""Clients that keep asking, and a ledger of what each of them saw."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its client saw it. `ended` is unix time; `error` is a code, or what broke."""

    id: str
    ended: float
    status: int
    error: str = ""
    text: str = ""
    adapter: str = ""

    @property
    def good(self) -> bool:
        return self.status == 200 and not self.error


@dataclass
class Traffic:
    """`clients` threads that send one request after another until `stop`."""

    port: int
    key: str
    body: dict[str, Any]
    clients: int = 8
    pause_s: float = 0.0
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
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

    def since(self, moment: float) -> list[Seen]:
        return [one for one in self.seen if one.ended >= moment]

    def _client(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        turn = 0
        while not self._stop.is_set():
            turn += 1
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
            try:
                self.seen.append(ask(connection, self.key, self.body | {"user": f"{number}-{turn}"}))
            except (OSError, http.client.HTTPException) as error:
                self.seen.append(Seen("", time.time(), 0, repr(error)))
                connection.close()
                connection = None
                time.sleep(0.02)
            pause_s = self.pause_s if self.seen[-1].status == 200 else max(self.pause_s, 0.05)
            if pause_s:
                time.sleep(pause_s)
        if connection is not None:
            connection.close()


def ask(connection: http.client.HTTPConnection, key: str, body: dict[str, Any]) -> Seen:
    """One chat request, streamed or not, read to its end."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    adapter = answer.headers.get("x-graftline-adapter", "")
    data = answer.read()
    ended = time.time()
    if answer.status != 200:
        return Seen("", ended, answer.status, json.loads(data)["error"]["code"])
    if not body.get("stream"):
        document = json.loads(data)
        return Seen(document["id"], ended, 200, "", document["choices"][0]["message"]["content"], adapter)
    events = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        return Seen("", ended, 200, "cut without a word", "", adapter)
    parts = [json.loads(event) for event in events[:-1]]
    error = next((part["error"]["code"] for part in parts if "error" in part), "")
    found = next((part["id"] for part in parts if "id" in part), "")
    text = "".join(c["delta"].get("content") or "" for part in parts for c in part.get("choices", ()))
    return Seen(found, ended, 200, error, text, adapter)
