"""Records, words said of them and tasks, as the tests of reviews need them."""

from __future__ import annotations

from typing import Any

import orjson

from monitoring.records.events import Feedback, Inference, from_parts
from monitoring.review.values import By, Kind, Reason, Task

NOW = 1_800_000_000.0
WHY = Reason(by=By.QUERY, why="asked for", score=1.0)


def an_id(number: int, at: float = NOW) -> str:
    return from_parts(int(at * 1000) + number, 0, number)


def record(number: int, prompt: str = "hello", answer: str = "hi", **values: Any) -> Inference:
    """An answer with its bodies, as `compose` leaves them; `logprobs` go into the answer."""
    logprobs = values.pop("logprobs", None)
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": answer}}
    if logprobs is not None:
        choice["logprobs"] = {"content": [{"token": "a", "logprob": value} for value in logprobs]}
    given: dict[str, Any] = {
        "id": an_id(number),
        "completion_id": f"chatcmpl-{number}",
        "tenant": "acme",
        "endpoint": "chat",
        "model": "support",
        "adapter": "support:1",
        "digest": "sha256:1",
        "started_at": NOW - 1,
        "status": 200,
        "captured": "full",
        "request": orjson.dumps({"model": "support", "messages": [{"role": "user", "content": prompt}]}).decode(),
        "response": orjson.dumps({"id": f"chatcmpl-{number}", "model": "support:1", "choices": [choice]}).decode(),
    }
    return Inference(**(given | values))


def word(number: int, target: int, kind: str = "thumbs", value: float | None = None, **values: Any) -> Feedback:
    given: dict[str, Any] = {
        "id": an_id(number, NOW + 10),
        "at": NOW + 10,
        "tenant": "acme",
        "target": f"chatcmpl-{target}",
        "kind": kind,
        "rater": f"u-{number}",
        "value": value,
    }
    return Feedback(**(given | values))


def task(number: int = 1, *records: int, **values: Any) -> Task:
    """Of one record to be labelled, or of two to be compared."""
    about = records or (number,)
    given: dict[str, Any] = {
        "id": an_id(number, NOW + 100),
        "tenant": "acme",
        "kind": Kind.COMPARE if len(about) == 2 else Kind.LABEL,
        "records": tuple(an_id(each) for each in about),
        "completions": tuple(f"chatcmpl-{each}" for each in about),
        "reason": WHY,
        "picked_at": NOW,
        "picked_by": "acme/ann",
    }
    return Task(**(given | values))
