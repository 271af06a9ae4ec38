"""An engine and a judge for tests: OpenAI's HTTP, in memory. Tokens are characters; likelihoods are by model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import orjson

Answers = Callable[[str, str], str]  # (model, last user's turn) → answer


class Fake:
    """`fail` is how many of the next requests to a path are answered with which status first."""

    def __init__(
        self,
        answers: Answers,
        *,
        logprobs: Mapping[str, float] | None = None,
        models: tuple[str, ...] = ("base", "support@1", "support@2"),
        fail: dict[str, list[int]] | None = None,
    ) -> None:
        self.answers = answers
        self.logprobs = logprobs or {}
        self.models = models
        self.fail = fail or {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if self.fail.get(path):
            return httpx.Response(self.fail[path].pop(0), text="not now")
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": name} for name in self.models]})
        body = orjson.loads(request.content)
        self.asked.append((path, body))
        if body["model"] not in self.models:
            return httpx.Response(404, json={"error": {"message": "no such model"}})
        if path == "/tokenize":
            text = (
                body["prompt"] if "prompt" in body else _template(body["messages"], ask=body["add_generation_prompt"])
            )
            return httpx.Response(200, json={"tokens": [ord(each) for each in text]})
        if path == "/v1/completions":
            return self._weighed(body)
        asked = next(each["content"] for each in reversed(body["messages"]) if each["role"] == "user")
        said = self.answers(body["model"], asked)
        usage = {"completion_tokens": len(said.split())}
        choice = {"message": {"content": said}, "finish_reason": "length" if said.endswith("…") else "stop"}
        return httpx.Response(200, json={"choices": [choice], "usage": usage})

    def _weighed(self, body: dict[str, Any]) -> httpx.Response:
        if len(body["prompt"]) > 500:
            return httpx.Response(
                400, json={"error": {"message": "This model's maximum context length is 500 tokens."}}
            )
        each = self.logprobs.get(body["model"], -1.0)
        found = [None, *({str(token): {"logprob": each}} for token in body["prompt"][1:])]
        return httpx.Response(200, json={"choices": [{"prompt_logprobs": found}]})


def _template(messages: list[dict[str, str]], *, ask: bool) -> str:
    written = "".join(f"<{each['role']}>{each['content']}<end>" for each in messages)
    return written + ("<assistant>" if ask else "")
