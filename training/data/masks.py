"""Placeholders that redaction left, and what it would still find. Pure.

A model that learns `[EMAIL]` says it, so the places are masked from the loss. Text that still holds what redaction
looks for (written before it knew the form, or imported) leaves with its row, or is masked, as the rules say.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from monitoring.safety.redact import redact
from training.data.reasons import Reason
from training.data.values import PAIRED, Candidate

_PLACEHOLDER = re.compile(r"\[(?:EMAIL|PHONE|CARD|IBAN|IP|SECRET)\]")
_SAID = re.compile(r"\w")
#: System prompts repeat; nothing else does.
_REPEATED_MAX = 512
_SYSTEM = frozenset({"system", "developer"})
#: Between texts that are looked at together: nothing that is looked for stands across it.
_APART = "\n\0\n"


def spans(text: str) -> list[tuple[int, int]]:
    """Where placeholders stand."""
    return [match.span() for match in _PLACEHOLDER.finditer(text)] if "[" in text else []


def says_something(text: str) -> bool:
    """Whether a word is left besides placeholders."""
    return bool(_SAID.search(_PLACEHOLDER.sub("", text) if "[" in text else text))


def cleaned(candidate: Candidate, personal: Literal["drop", "mask"]) -> Candidate | Reason:
    """The candidate as it may be written, or why it may not be."""
    needed = (candidate.answer, candidate.rejected) if candidate.kind in PAIRED else (candidate.answer,)
    found = _found(candidate)
    if found and personal == "drop":
        return Reason.SECRET if "SECRET" in found else Reason.PERSONAL
    if found:
        candidate = replace(
            candidate,
            prompt=tuple(replace(each, content=redact(each.content).text) for each in candidate.prompt),
            answer=redact(candidate.answer).text,
            rejected=redact(candidate.rejected).text,
        )
        needed = (candidate.answer, candidate.rejected) if candidate.kind in PAIRED else (candidate.answer,)
    if candidate.kind != "rl" and not all(map(says_something, needed)):
        return Reason.PLACEHOLDERS
    return candidate


def _found(candidate: Candidate) -> set[str]:
    """What kinds of personal data or secrets are there. Nearly always none, and one look at all texts tells that."""
    texts = [each.content for each in candidate.prompt if each.role not in _SYSTEM]
    texts += [candidate.answer, candidate.rejected]
    kinds = {kind for each in candidate.prompt if each.role in _SYSTEM for kind in _repeated(each.content)}
    if redact(_APART.join(texts)).counts:
        kinds.update(kind for each in texts for kind in redact(each).counts)
    return kinds


@lru_cache(maxsize=_REPEATED_MAX)
def _repeated(text: str) -> tuple[str, ...]:
    return tuple(redact(text).counts)
