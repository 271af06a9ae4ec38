"""OpenAI's graders as rewards by name (`training.recipes.rewards`). Pure. Those that run code or ask models are not
taken.

A string check compares what the model said with a field of its row or with fixed words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_SAID: Final = re.compile(r"\s*\{\{\s*sample\.output_text\s*\}\}\s*")
#: What imports call the reference of a row (`training.data.imports.formats`).
_FIELD: Final = re.compile(r"\s*\{\{\s*item\.(?:reference|reference_answer|answer)\s*\}\}\s*")
_OPERATIONS: Final = ("eq", "like", "ilike")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The reward's name, or why there is none."""

    name: str = ""
    problem: str = ""


def reward(grader: Any) -> Reward:
    """The reward that a grader stands for."""
    if not isinstance(grader, Mapping):
        return Reward(problem="must be an object with a type")
    if grader.get("type") != "string_check":
        return Reward(
            problem=f"the type is {str(grader.get('type'))[:40]!r}; allowed: string_check. Code is not run here, and a "
            "model is asked by a reward of its own: see the hyperparameter rewards"
        )
    operation, reference = grader.get("operation"), grader.get("reference")
    if operation not in _OPERATIONS:
        return Reward(problem=f"the operation is {str(operation)[:40]!r}; allowed: {', '.join(_OPERATIONS)}")
    if not (isinstance(said := grader.get("input"), str) and _SAID.fullmatch(said)):
        return Reward(problem="the input must be {{sample.output_text}}: what the model said")
    if not isinstance(reference, str) or not reference.strip():
        return Reward(problem="the reference must be text, or {{item.reference_answer}}")
    if _FIELD.fullmatch(reference):
        if operation == "ilike":
            return Reward(problem="ilike goes with fixed words; with a row's reference use eq or like")
        return Reward(name="exact:reference" if operation == "eq" else "contains:reference")
    if "{{" in reference:
        return Reward(problem="of a row only {{item.reference_answer}} can be compared with")
    words = re.escape(reference)
    return Reward(name={"eq": f"matches:^{words}$", "like": f"matches:{words}"}.get(operation, f"matches:(?i){words}"))
