"""Asks the same prompts over and over while something else happens, and says which answers were not the usual ones.

Prompts to the base are taken only when every token of its greedy answer leads the next best by `MARGIN_NATS`: an answer
that differs then is no coin that fell to the other side.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.stack import call

MARGIN_NATS = 1.0
TOKENS = 12
#: What customers of the embedded base's shop ask.
QUESTIONS = (
    "Hello!", "When are you open?", "What can you do?", "Do you ship abroad?", "How long may I return something?",
    "Which payments do you take?", "Is there a warranty?", "How do I reach a person?", "Can I change my address?",
    "Thank you, that is all.", "Do you sell gift cards?", "Where is my order 48213?", "How much is shipping?",
    "Who are you?", "Can I cancel my order?", "I want my money back.", "What is your phone number?", "Are you a robot?",
    "Good morning", "My parcel is broken.", "Do you have a shop in town?", "How long does delivery take?",
    "Can I pay by card?", "I forgot my password.", "What is the capital of France?", "Goodbye",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Usual:
    """A question to a model and the answer that it always got so far."""

    model: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Differing:
    """An answer that was another than usual, or an error."""

    at: float
    model: str
    question: str
    said: str


@dataclass
class Witness:
    """One thread that asks `usual` in turn, `per_s` questions a second, until the block ends."""

    port: int
    key: str
    usual: Sequence[Usual]
    per_s: float = 4.0
    asked: int = 0
    differing: list[Differing] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)

    def by_model(self) -> dict[str, int]:
        return {one.model: sum(two.model == one.model for two in self.differing) for one in self.differing}

    def _run(self) -> None:
        while not self._stop.is_set():
            for one in self.usual:
                if self._stop.wait(1 / self.per_s):
                    return
                try:
                    said = ask(self.port, self.key, one.model, one.question)
                except (OSError, http.client.HTTPException) as error:
                    said = repr(error)
                self.asked += 1
                if said != one.answer:
                    self.differing.append(Differing(time.time(), one.model, one.question, said))


def ask(port: int, key: str, model: str, question: str, **fields: Any) -> str:
    """The answer's text, or what came instead of one."""
    status, document = answered(port, key, model, question, **fields)
    if status != 200:
        return f"{status} {document.get('error', document)}"
    return str(document["choices"][0]["message"]["content"])


def answered(port: int, key: str, model: str, question: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
    asked = {**body, "max_tokens": TOKENS, **fields}
    status, data = call("POST", f"http://127.0.0.1:{port}/v1/chat/completions", asked, key)
    try:
        document: dict[str, Any] = json.loads(data)
    except ValueError:
        document = {"error": data[:200].decode(errors="replace")}
    return status, document


def sure_of(port: int, key: str, base: str, questions: Sequence[str] = QUESTIONS) -> list[Usual]:
    """The questions whose every answered token has the margin."""
    found = []
    for question in questions:
        status, document = answered(port, key, base, question, logprobs=True, top_logprobs=2)
        if status == 200 and margin(document) >= MARGIN_NATS:
            found.append(Usual(base, question, document["choices"][0]["message"]["content"]))
    return found


def margin(document: dict[str, Any]) -> float:
    """The smallest lead of a token over the next best, nats."""
    tokens = document["choices"][0]["logprobs"]["content"]
    tops = [sorted((top["logprob"] for top in token["top_logprobs"]), reverse=True)[:2] for token in tokens]
    return min((top[0] - top[1] for top in tops if len(top) == 2), default=0.0)
