"""The keys of rank_pattern and alpha_pattern: regular expressions written by strangers, run by us and by the engine.

Only those that can be neither slow nor surprising pass: no look-around, no back-references, no repeated groups, at
most two repetitions. What is left takes at most cubic time in the length of a module's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

#: Keys of one pattern. EVA writes one for each module.
PATTERNS_MAX = 4096

_ALLOWED = re.compile(r"[A-Za-z0-9_.\\^$|()\[\]+*?-]{1,512}")
_TRAPS = re.compile(r"\(\?|\)[*+?]|\\[^.d]")
_REPETITIONS_MAX = 2

Value = TypeVar("Value")


def is_safe(key: str) -> bool:
    """Whether the expression may be run."""
    if not _ALLOWED.fullmatch(key) or _TRAPS.search(key):
        return False
    if sum(key.count(repetition) for repetition in "*+?") > _REPETITIONS_MAX:
        return False
    try:
        _compiled(key)
    except re.error:
        return False
    return True


def first_match(pattern: Mapping[str, Value], module: str, default: Value) -> Value:
    """PEFT's and vLLM's rule: a key matches a suffix of the module's name from a dot on; the first one wins."""
    return next((value for key, value in pattern.items() if _compiled(key).match(module)), default)


@lru_cache(maxsize=2 * PATTERNS_MAX)
def _compiled(key: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({key})$")
