"""Whether an answer may be wanted. A Protocol, with simple rules behind it until safety models score answers."""

from __future__ import annotations

import re
from typing import Protocol


class Safety(Protocol):
    """What scores answers. One that is flagged is never a wanted answer; it may well be an unwanted one."""

    def flags(self, asked: str, answer: str) -> str:
        """Why this answer must not be wanted; empty if it may be."""


#: (what it is, words without one of which the form cannot occur, the form). Looking for words costs almost nothing.
_FORMS = (
    (
        "violence",
        ("bomb", "explosive", "grenade", "molotov"),
        re.compile(
            r"\b(?:how to|steps? to|you can|instructions? (?:to|for))\b[^.\n]{0,40}"
            r"\b(?:build|make|assemble)\b[^.\n]{0,30}\b(?:(?:pipe )?bomb|explosive|grenade|molotov)\b"
        ),
    ),
    (
        "self_harm",
        ("yourself", "kys"),
        re.compile(r"\b(?:you should|go and|just) (?:kill|hurt|cut) yourself\b|\bkys\b"),
    ),
    (
        "threat",
        ("kill you", "hurt you", "find you"),
        re.compile(r"\bi(?:'ll| will| am going to) (?:kill|hurt|find) you\b"),
    ),
    (
        "injection",
        ("instructions",),
        re.compile(r"\b(?:ignore|disregard) (?:all )?(?:previous|prior|above) instructions\b"),
    ),
)


class PlainRules:
    """A few forms that no answer should be learnt with. Says little about what it does not find."""

    def flags(self, asked: str, answer: str) -> str:
        said = " ".join(answer.lower().split())
        return next(
            (name for name, words, form in _FORMS if any(word in said for word in words) and form.search(said)), ""
        )
