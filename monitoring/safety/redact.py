"""Replaces personal data and secrets by placeholders before anything is written. By pattern: no model, no network.

Found: e-mail addresses, phone numbers, payment cards, IBANs, IP addresses, keys and tokens. Not found: names, street
addresses, and whatever else only its meaning gives away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from monitoring.safety.numbers import cards, ibans, machines, phones
from monitoring.safety.secrets import secrets

_EMAIL = re.compile(
    r"(?:(?<![\w.+%\\-])|(?<=\\[nrt]))[\w+%][\w.+%-]*+@(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
_DIGITS = re.compile(r"\d[\d .:()\u00a0-]{3}|[\da-fA-F]::?[\da-fA-F]|::[\da-fA-F]|[A-Za-z]{2}\d\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """The text that may be written, and how many of each kind were taken out of it."""

    text: str
    counts: Mapping[str, int]


def redact(text: str) -> Redacted:
    """Put `[EMAIL]`, `[PHONE]`, `[CARD]`, `[IBAN]`, `[IP]`, `[SECRET]` in the place of what was found."""
    counts: dict[str, int] = {}
    text = _without("SECRET", secrets, text, counts)
    if "@" in text:
        text = _without("EMAIL", _emails, text, counts)
    if _DIGITS.search(text):
        for kind, find in (("IBAN", ibans), ("CARD", cards), ("IP", machines), ("PHONE", phones)):
            text = _without(kind, find, text, counts)
    return Redacted(text=text, counts=counts)


def redact_json(value: Any) -> Any:
    """A decoded JSON document with every string redacted; keys stay. Nothing is changed in place."""
    if type(value) is str:
        return redact(value).text
    if type(value) is dict:
        return {key: redact_json(each) for key, each in value.items()}
    if type(value) is list:
        return [redact_json(each) for each in value]
    return value


def _emails(text: str) -> Iterable[tuple[int, int]]:
    return (match.span() for match in _EMAIL.finditer(text))


def _without(kind: str, find: Callable[[str], Iterable[tuple[int, int]]], text: str, counts: dict[str, int]) -> str:
    pieces: list[str] = []
    done = 0
    for start, end in sorted(find(text)):
        if start >= done:
            pieces += (text[done:start], f"[{kind}]")
            counts[kind] = counts.get(kind, 0) + 1
        done = max(done, end)
    return "".join((*pieces, text[done:])) if pieces else text
