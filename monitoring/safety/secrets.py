"""Keys, tokens and private keys, by the form their issuers gave them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: (a mark without which the form cannot occur, the form). A mark is looked for first, for that costs almost nothing.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (mark, re.compile(form))
    for mark, form in (
        ("gl-", r"gl-[A-Za-z0-9]{4,64}-[A-Za-z0-9_-]{43}"),  # ours
        ("sk-", r"sk-[A-Za-z0-9_-]{20,}"),  # OpenAI, Anthropic, OpenRouter, DeepSeek
        ("_live_", r"[a-z]{2,5}_live_[A-Za-z0-9]{16,}"),  # Stripe
        ("_test_", r"[rsp]k_test_[A-Za-z0-9]{16,}"),
        ("AKIA", r"AKIA[0-9A-Z]{16}"),  # AWS
        ("ASIA", r"ASIA[0-9A-Z]{16}"),
        ("gh", r"gh[opsur]_[A-Za-z0-9]{36,}"),  # GitHub
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{22,}"),
        ("glpat-", r"glpat-[A-Za-z0-9_.-]{20,}"),  # GitLab
        ("xox", r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}"),  # Slack
        ("xapp-", r"xapp-[A-Za-z0-9-]{10,}"),
        ("AIza", r"AIza[0-9A-Za-z_-]{35}"),  # Google
        ("GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,}"),
        ("hf_", r"hf_[A-Za-z0-9]{30,}"),  # Hugging Face
        ("npm_", r"npm_[A-Za-z0-9]{36}"),
        ("SG.", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),  # SendGrid
        ("eyJ", r"(?:(?<![\w-])|(?<=\\[nrt]))eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*"),  # JWT
        ("earer", r"(?i:bearer)[ \t]+(?P<secret>[A-Za-z0-9._~+/-]{16,}=*)"),
    )
)
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,-]*+")


def secrets(text: str) -> Iterator[tuple[int, int]]:
    """Where secrets stand in a text: (start, end) pairs, in no order; they may overlap."""
    for mark, form in _FORMS:
        if mark not in text:
            continue
        for match in form.finditer(text):
            start, end = match.span(match.lastgroup or 0)
            if _may_start(text, match.start()) and any(c.isdigit() for c in text[start:end]):
                yield start, end
    if "PRIVATE KEY" in text:
        yield from _private_keys(text)


def _may_start(text: str, start: int) -> bool:
    """A key begins a word. The letter of an escaped line break, as in JSON kept within JSON, is not part of a word."""
    before = text[max(0, start - 2) : start]
    return not before or before in ("\\n", "\\r", "\\t") or not (before[-1].isalnum() or before[-1] == "_")


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    """From the header to the end line; without one, as far as what follows could be the key."""
    position = 0
    while begin := _PEM.search(text, position):
        end = _PEM_END.search(text, begin.end())
        body = _PEM_BODY.match(text, begin.end())
        position = end.end() if end else body.end() if body else begin.end()
        yield begin.start(), position
