"""The columns of each kind of row, and a row out of a candidate and its tokens. Pure; the names are TRL's."""

from __future__ import annotations

from typing import Any

from monitoring.records.codes import code
from training.data.template import Encoded
from training.data.values import PAIRED, Candidate

#: What every row says of where it comes from. `owner` is a code: whose it is can be asked, but not read.
LINEAGE = ("origin", "at", "owner", "route", "policy", "adapter", "arm", "experiment", "inferences", "words")


def row(candidate: Candidate, encoded: Encoded, weight: float) -> dict[str, Any]:
    """One row as it is written."""
    document: dict[str, Any] = {
        "weight": weight,
        "origin": candidate.origin,
        "at": candidate.at,
        "owner": code(candidate.tenant, candidate.owner) if candidate.owner else 0,
        "route": candidate.route,
        "policy": candidate.policy,
        "adapter": candidate.adapter,
        "arm": candidate.arm,
        "experiment": candidate.experiment,
        "inferences": list(candidate.inferences),
        "words": list(candidate.words),
        **encoded.columns,
    }
    if candidate.kind == "text":
        return {"text": candidate.answer, **document}
    document["prompt"] = [{"role": each.role, "content": each.content} for each in candidate.prompt]
    if candidate.kind in PAIRED:
        return {"chosen": _said(candidate.answer), "rejected": _said(candidate.rejected), **document}
    if candidate.kind == "rl":
        return {"reference": candidate.answer, "score": candidate.score, **document}
    document["completion"] = _said(candidate.answer)
    return {**document, "label": candidate.label} if candidate.kind == "kto" else document


def _said(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]
