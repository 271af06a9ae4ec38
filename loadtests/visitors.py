"""People in an experiment: they converse, say what they think of an answer, lose patience, and try again as SDKs do.

Each try is written down with what its client saw: that ledger is what the store of the installation is held against.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

from loadtests.markers import WORDS, spoken
from loadtests.witness import QUESTIONS

PATIENCE_S = 120.0  # how long one request is tried again
RETRIES_PAUSE_S = 0.5


class Way(StrEnum):
    """How a client goes about a request."""

    PLAIN = "plain"
    STREAM = "stream"
    LEFT = "left"  # goes away after the first token of a stream
    AGAIN = "again"  # loses patience when the head is there, and sends the same body again as the SDK does


PATIENT: Mapping[Way, float] = {Way.PLAIN: 0.5, Way.STREAM: 0.5}


class Fate(StrEnum):
    """What became of a try, as its client saw it."""

    ANSWERED = "answered"
    LEFT = "left"
    UNREAD = "unread"  # the head was read, the rest was not
    LOST = "lost"  # the connection broke
    REFUSED = "refused"  # an error answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One HTTP request. `arm` and `number` (the adapter's version) are what the answer's head says; `began` and `ended`
    are unix times."""

    unit: str
    turn: int
    retry: int
    fate: Fate
    began: float
    ended: float = 0.0
    arm: str = ""
    number: int = -1
    experiment: str = ""
    id: str = ""
    text: str = ""
    error: str = ""

    @property
    def headed(self) -> bool:
        """The head said which arm it is, so it was exposed for certain."""
        return bool(self.arm)

    @property
    def sent(self) -> bool:
        """Somebody listened, so it may have been taken in."""
        return ConnectionRefusedError.__name__ not in self.error

    @property
    def word(self) -> str:
        """Whose word it is; empty for none, or several."""
        return next((word for word in WORDS if self.text == spoken(word)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """What was said of an answer, and that the gateway has confirmed it."""

    unit: str
    arm: str
    target: str
    up: bool


@dataclass
class Visitors:
    """Clients of one installation. `likes` is the chance of a thumb up by the word of the answer."""

    port: int
    key: str
    body: Mapping[str, Any]
    likes: Mapping[str, float]
    metadata: Mapping[str, str]
    clients: int = 12
    ways: Mapping[Way, float] = field(default_factory=lambda: PATIENT)
    tries: list[Try] = field(default_factory=list)
    thumbs: list[Thumb] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)  # feedback that never got its 200
    done: int = 0

    def __post_init__(self) -> None:
        self._kept = threading.local()
        self._said: dict[str, list[dict[str, str]]] = defaultdict(list)

    def rounds(self, units: Sequence[str], turns: int) -> None:
        """Everybody's first turn, then everybody's second, and so on."""
        with ThreadPoolExecutor(self.clients) as pool:
            for turn in range(turns):
                list(pool.map(partial(self.visit, turn=turn), units))

    @contextmanager
    def crowd(self, prefix: str, *, pause_s: float = 0.0) -> Iterator[None]:
        """New people, and every third one somebody who was there already, until the block ends."""
        stop, numbers = threading.Event(), itertools.count()

        def client() -> None:
            while not stop.is_set():
                at = next(numbers)
                back = at % 3 == 2 and at > 60
                self.visit(f"{prefix}-{at // 2 - 20 if back else at}", at if back else 0)
                stop.wait(pause_s)

        threads = [threading.Thread(target=client, daemon=True) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)

    def visit(self, unit: str, turn: int) -> None:
        """One turn of a conversation: the request, sent again until it is answered, and what is said of the answer."""
        chance = random.Random(f"{unit}/{turn}")
        way = chance.choices([*self.ways], [*self.ways.values()])[0]
        question = {"role": "user", "content": chance.choice(QUESTIONS)}
        body = {
            **self.body,
            "messages": [*self._said[unit], question],
            "user": unit,
            "store": True,
            "metadata": {**self.metadata, "conversation_id": f"conversation-of-{unit}"},
        }
        if way is not Way.PLAIN:
            body["stream"] = way in (Way.STREAM, Way.LEFT)
        if way is Way.LEFT:
            body |= {"max_tokens": 64, "ignore_eos": True}
        last = self._asked(unit, turn, way, body)
        if last.fate is Fate.ANSWERED:
            self._said[unit] += [question, {"role": "assistant", "content": last.text}]
            self._rate(last, up=chance.random() < self.likes.get(last.word, 0.0))
        self.done += 1

    def _asked(self, unit: str, turn: int, way: Way, body: Mapping[str, Any]) -> Try:
        until = time.monotonic() + PATIENCE_S
        for retry in itertools.count():
            trying = Try(unit=unit, turn=turn, retry=retry, fate=Fate.LOST, began=time.time())
            try:
                seen = self._sent(trying, Way.PLAIN if way is Way.AGAIN and retry else way, body)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                seen = replace(trying, error=repr(error))
            if seen.fate is not Fate.ANSWERED:
                self._hang_up()
            seen = replace(seen, ended=time.time())
            self.tries.append(seen)
            if seen.fate in (Fate.ANSWERED, Fate.LEFT) or time.monotonic() > until:
                return seen
            if seen.fate is not Fate.UNREAD:
                time.sleep(RETRIES_PAUSE_S)
        raise AssertionError("counting ends never")

    def _sent(self, trying: Try, way: Way, body: Mapping[str, Any]) -> Try:
        headers = self._headers | {"x-stainless-retry-count": str(trying.retry)}
        connection = self._connection
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            data = answer.read()
            return replace(trying, fate=Fate.REFUSED, error=f"{answer.status} {data[:200]!r}")
        headed = replace(
            trying,
            arm=answer.headers.get("x-graftline-arm", ""),
            experiment=answer.headers.get("x-graftline-experiment", ""),
            number=_number(answer.headers.get("x-graftline-adapter", "")),
        )
        try:
            if way is Way.AGAIN:
                return replace(headed, fate=Fate.UNREAD)
            return _streamed(headed, answer, way) if body.get("stream") else _read(headed, answer)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            return replace(headed, error=repr(error))  # lost, but its arm is known

    def _rate(self, answered: Try, *, up: bool) -> None:
        """Said until it is confirmed, for a thumb that got its 200 must be in the store."""
        body = {"target": answered.id, "kind": "thumbs", "value": 1 if up else -1, "rater": answered.unit}
        until, said = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < until:
            try:
                connection = self._connection
                connection.request("POST", "/v1/feedback", json.dumps(body), self._headers)
                answer = connection.getresponse()
                data = answer.read()
                if answer.status == 200:
                    self.thumbs.append(Thumb(unit=answered.unit, arm=answered.arm, target=answered.id, up=up))
                    return
                said = f"{answer.status} {data[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                said = repr(error)
            time.sleep(RETRIES_PAUSE_S)
        self.unsaid.append(said)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}

    @property
    def _connection(self) -> http.client.HTTPConnection:
        """One a thread, kept alive as SDKs do."""
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if kept is None:
            kept = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
            self._kept.connection = kept
        return kept

    def _hang_up(self) -> None:
        self._connection.close()
        self._kept.connection = None


def _read(headed: Try, answer: http.client.HTTPResponse) -> Try:
    document = json.loads(answer.read())
    text = document["choices"][0]["message"]["content"] or ""
    return replace(headed, fate=Fate.ANSWERED, id=str(document["id"]), text=text)


def _streamed(headed: Try, answer: http.client.HTTPResponse, way: Way) -> Try:
    """To its end, or as far as a token for those who leave then."""
    found, text = "", ""
    while line := answer.readline():
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            answer.read()  # the rest of the chunked body, so that the connection can be used again
            return replace(headed, fate=Fate.ANSWERED, id=found, text=text)
        part = json.loads(line[6:])
        if "error" in part:
            return replace(headed, error=str(part["error"])[:200])
        found = found or str(part["id"])
        text += "".join(choice["delta"].get("content") or "" for choice in part.get("choices", ()))
        if way is Way.LEFT and text:
            return replace(headed, fate=Fate.LEFT, id=found, text=text)
    return replace(headed, id=found, error="cut without a word")


def _number(adapter: str) -> int:
    """The version's number in the head's `name:number@digest`."""
    number = adapter.partition("@")[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else -1
