"""Whether a version may become `live`: what measures an adapter decides elsewhere, here is only the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from adapters.values import Evidence, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a gate says; `reasons` tell why not."""

    passed: bool
    reasons: tuple[str, ...] = ()


class Gate(Protocol):
    """Asked before `live` is pointed at a version that it does not point at. Pure: the evidence is all it sees."""

    def decide(self, version: Version, evidence: Sequence[Evidence]) -> Verdict: ...


class OpenGate:
    """Lets everything pass that is verified."""

    def decide(self, version: Version, evidence: Sequence[Evidence]) -> Verdict:
        return Verdict(passed=True)


def waits(version: Version, evidence: Sequence[Evidence]) -> bool:
    """Whether a version that our own training made has not passed its evaluation: it is loaded, so that it can be asked
    things, and neither admitted nor pointed at. What others made does not wait."""
    judged = [found for found in evidence if found.kind == "gate"]
    return version.origin == "training" and not (judged and judged[-1].passed)


class EvidenceGate:
    """Lets pass what was evaluated, by our own training or by somebody else, and passed the latest time."""

    def decide(self, version: Version, evidence: Sequence[Evidence]) -> Verdict:
        judged = [found for found in evidence if found.kind == "gate"]
        if not judged:
            where = "it was made here" if version.origin == "training" else "it was not made here"
            return Verdict(passed=False, reasons=(f"{where}, and has not been evaluated",))
        if not judged[-1].passed:
            why = judged[-1].body.get("why", "see its evidence")
            return Verdict(passed=False, reasons=(f"its latest evaluation, by {judged[-1].who}, failed: {why}",))
        return Verdict(passed=True)


def make_gate(setting: Literal["off", "required"]) -> Gate:
    """The gate that the setting names."""
    return EvidenceGate() if setting == "required" else OpenGate()
