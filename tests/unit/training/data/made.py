"""Records, words and candidates for these tests, and an encoder that needs no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from monitoring.records.events import Feedback, Inference, from_parts
from monitoring.records.store import MemoryRecords
from training.data.reasons import Reason
from training.data.template import Encoded
from training.data.values import PAIRED, Candidate, Message

BEGAN_S = 1_790_000_000.0


def id_(number: int) -> str:
    return from_parts(int(BEGAN_S * 1000) + number, 0, number)


def inference(
    number: int, asked: str = "How long may I return it?", answer: str = "30 days.", **more: Any
) -> Inference:
    said = [{"role": "user", "content": asked}]
    fields: dict[str, Any] = {
        "id": id_(number),
        "completion_id": f"chatcmpl-{number}",
        "tenant": "acme",
        "endpoint": "chat",
        "model": "support",
        "digest": "sha256:three",
        "started_at": BEGAN_S + number,
        "status": 200,
        "finish": "stop",
        "user": f"user-{number}",
        "captured": "full",
        "request": orjson.dumps({"messages": said}).decode(),
        "response": orjson.dumps(
            {"choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}]}
        ).decode(),
    }
    return Inference(**{**fields, **more})


def word(number: int, target: int | str, kind: str = "thumbs", value: float | None = None, **more: Any) -> Feedback:
    fields: dict[str, Any] = {
        "id": id_(1_000_000 + number),
        "at": BEGAN_S + 1000 + number,
        "tenant": "acme",
        "target": f"chatcmpl-{target}" if isinstance(target, int) else target,
        "kind": kind,
        "rater": f"rater-{number}",
        "value": value,
    }
    return Feedback(**{**fields, **more})


def stored(*events: Inference | Feedback) -> MemoryRecords:
    records = MemoryRecords()
    records.ingest("test", 1, events)
    return records


def candidate(kind: str = "kto", asked: str = "Hi", answer: str = "Hello.", **more: Any) -> Candidate:
    fields: dict[str, Any] = {"prompt": (Message(role="user", content=asked),), "origin": "thumbs", "tenant": "acme"}
    return Candidate(kind=kind, answer=answer, **{**fields, **more})  # type: ignore[arg-type]


class Letters:
    """A token is a letter; a placeholder's letters are not learnt."""

    digest = "sha256:letters"

    def encode(self, candidates: Sequence[Candidate]) -> list[Encoded | Reason]:
        return [self._one(each) for each in candidates]

    def _one(self, each: Candidate) -> Encoded:
        prompt, answer = ([ord(letter) for letter in text] for text in (each.conversation, each.answer))
        if each.kind == "text":
            columns = {"input_ids": answer, "completion_mask": [1] * len(answer)}
            return Encoded(columns=columns, tokens=len(answer))
        if each.kind == "rl":
            return Encoded(columns={"prompt_ids": prompt}, tokens=len(prompt))
        mask = [1] * len(answer)
        if each.kind in PAIRED:
            other = [ord(letter) for letter in each.rejected]
            columns = {
                "prompt_ids": prompt,
                "chosen_ids": answer,
                "rejected_ids": other,
                "chosen_mask": mask,
                "rejected_mask": [1] * len(other),
            }
        elif each.kind == "kto":
            columns = {"prompt_ids": prompt, "completion_ids": answer, "completion_mask": mask}
        else:
            columns = {"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + mask}
        return Encoded(columns=columns, tokens=len(prompt) + len(answer))
