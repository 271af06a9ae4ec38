"""What the scripted engine can be told to do, in a prompt or ahead of time through `POST /script`. Pure.

    [[say:TEXT]]     answer TEXT after the marker, a token a word     [[tokens:48]]  answer that many tokens
    [[ttft:0.2]]     seconds to the first token                       [[pace:0.01]]  seconds between tokens
    [[slow:0.5]]     seconds to the head of the answer                [[split]]      each event in two writes
    [[merge:4]]      that many events in each write                   [[nan:3]]      logits are NaN after 3 tokens
    [[error:3]]      fail in-band after 3 tokens; at 0: status 500    [[hang:3]]     go silent after 3 tokens
    [[cut:3]]        drop the connection after 3 tokens               [[die:3]]      die after 3 tokens
    [[garbage:3]]    stop speaking HTTP after 3 tokens

Token counts are optional and 0 means before the head. An answer in one piece fails where a stream would have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

_CUE = re.compile(r"\[\[(?P<name>[a-z]+)(?::(?P<value>[^\[\]]{0,4096}))?\]\]")

Fault = Literal["", "error", "cut", "hang", "die", "garbage", "nan"]


class BadCue(ValueError):
    """A cue that does not exist, or a value that it cannot have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cues:
    """One request's script. `fault` strikes after `fault_at` tokens, `nan` after `nan_at`; `tokens` 0 means the natural
    length."""

    say: str = ""
    tokens: int = 0
    ttft_s: float = 0.0
    pace_s: float = 0.0
    slow_s: float = 0.0
    merge: int = 1
    split: bool = False
    nan: bool = False
    nan_at: int = 0
    fault: Fault = ""
    fault_at: int = 0


def parse(text: str, given: Cues) -> Cues:
    """The cues in `text` on top of `given`. Raises `BadCue`."""
    for match in _CUE.finditer(text):
        name, value = match["name"], match["value"] or ""
        try:
            given = _apply(given, name, value)
        except ValueError as error:
            raise BadCue(f"[[{name}:{value}]] is not a cue of the scripted engine") from error
    return given


def without(text: str) -> str:
    """`text` without its cues."""
    return _CUE.sub("", text)


def _apply(cues: Cues, name: str, value: str) -> Cues:
    match name:
        case "say":
            return replace(cues, say=value)
        case "tokens":
            return replace(cues, tokens=int(value))
        case "ttft":
            return replace(cues, ttft_s=float(value))
        case "pace":
            return replace(cues, pace_s=float(value))
        case "slow":
            return replace(cues, slow_s=float(value))
        case "merge":
            return replace(cues, merge=max(1, int(value)))
        case "split":
            return replace(cues, split=True)
        case "nan":
            return replace(cues, nan=True, nan_at=int(value or 0))
        case "error" | "cut" | "hang" | "die" | "garbage":
            return replace(cues, fault=name, fault_at=int(value or 0))
        case _:
            raise ValueError(name)
