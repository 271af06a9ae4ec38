"""What the gate asks of an engine: how an answer goes on, and how likely one is. By the OpenAI routes, a few at once.

The server's own chat template writes every prompt, so what is asked is what training learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import httpx

from training.evaluation.values import Endpoint
from training.gate.errors import CannotProbe
from training.gate.recital import Half

_T = TypeVar("_T")
_R = TypeVar("_R")
#: Tokens that a word takes at most, roughly, in a small vocabulary.
_WORD_TOKENS, _TOKENS_MAX = 4, 192
_BEGINNING_TOKENS = 48
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
#: More unanswered questions than this share end the probe.
_UNANSWERED_MAX = 0.2


class Asking(Protocol):
    """An engine that holds the model. A question that it refuses, as one too long, has no answer: None."""

    def goes_on(self, half: Half) -> str | None: ...

    def likelihood(self, turns: Sequence[tuple[str, str]], answer: str) -> float | None: ...

    def says(self, turns: Sequence[tuple[str, str]]) -> str | None: ...


class Engine:
    """One model of one engine."""

    def __init__(self, client: httpx.Client, model: str, *, tries: int) -> None:
        self._client, self._model, self._tries = client, model, tries

    def goes_on(self, half: Half) -> str | None:
        """The greedy words after the first half. Raises CannotProbe."""
        tokens = min(_TOKENS_MAX, _WORD_TOKENS * len(half.rest.split()) + 8)
        found = self._post(half.turns, half.begun, max_tokens=tokens)
        if found is None:
            return None
        choice = found["choices"][0]
        said: str = choice["text"] if "text" in choice else choice["message"]["content"] or ""
        # A server that gives the whole last turn back gives its beginning with it.
        return said.removeprefix(half.begun)

    def says(self, turns: Sequence[tuple[str, str]]) -> str | None:
        """The beginning of the greedy answer. Raises CannotProbe."""
        found = self._post(turns, None, max_tokens=_BEGINNING_TOKENS)
        return None if found is None else str(found["choices"][0]["message"]["content"] or "")

    def likelihood(self, turns: Sequence[tuple[str, str]], answer: str) -> float | None:
        """The summed log-probability of the prompt with this answer: what stands before it is the same for all that are
        compared. Raises CannotProbe."""
        found = self._post(turns, answer, max_tokens=1, prompt_logprobs=0)
        if found is None:
            return None
        listed = found.get("prompt_logprobs") or found["choices"][0].get("prompt_logprobs")
        if not listed:
            raise CannotProbe("The engine's answer holds no prompt_logprobs. Ask vLLM itself, not a gateway before it.")
        return float(sum(next(iter(at.values()))["logprob"] for at in listed if at))

    def _post(self, turns: Sequence[tuple[str, str]], last: str | None, **settings: Any) -> dict[str, Any] | None:
        body: dict[str, Any] = {"model": self._model, "temperature": 0, **settings}
        if turns:
            said = [{"role": role, "content": content} for role, content in turns]
            body["messages"] = said if last is None else [*said, {"role": "assistant", "content": last}]
            if last is not None:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            body["prompt"] = last
        path, why = "chat/completions" if turns else "completions", ""
        for _ in range(self._tries):
            try:
                answer = self._client.post(path, json=body)
            except httpx.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            why = f"{answer.status_code}: {answer.text[:200]}"
            if answer.status_code in (400, 422):
                return None
            if answer.status_code not in _PASSING:
                break
        raise CannotProbe(f"The engine did not answer the gate about {self._model}: {why}.")


@contextmanager
def engine(endpoint: Endpoint, model: str) -> Iterator[Engine]:
    """One model, as long as it is asked."""
    url = endpoint.url
    transport = httpx.HTTPTransport(uds=url.removeprefix("unix:")) if url.startswith("unix:") else None
    url = "http://engine" if transport is not None else url
    url = url.rstrip("/").removesuffix("/v1") + "/v1/"
    key = endpoint.key.get_secret_value()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(
        base_url=url, headers=headers, timeout=endpoint.timeout_s, transport=transport, trust_env=False
    ) as client:
        yield Engine(client, model, tries=endpoint.tries)


def together(ask: Callable[[_T], _R | None], questions: Sequence[_T], *, at_once: int) -> list[tuple[_T, _R]]:
    """The questions that were answered, with their answers, in their order. Raises CannotProbe where too few were."""
    with ThreadPoolExecutor(max_workers=max(1, min(at_once, len(questions)))) as pool:
        answers = list(pool.map(ask, questions))
    found = [(question, answer) for question, answer in zip(questions, answers, strict=True) if answer is not None]
    if len(questions) - len(found) > _UNANSWERED_MAX * len(questions):
        raise CannotProbe(
            f"The engine refused {len(questions) - len(found)} of {len(questions)} questions of the gate. Most likely "
            "they are longer than its max_model_len."
        )
    return found
