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


class EvidenceGate:
    """Lets pass what our own training made, which evaluates what it makes, and whose latest evaluation was passed."""

    def decide(self, version: Version, evidence: Sequence[Evidence]) -> Verdict:
        if version.origin == "training":
            return Verdict(passed=True)
        judged = [found for found in evidence if found.kind == "gate"]
        if not judged:
            return Verdict(passed=False, reasons=("it was not made here, and has not been evaluated",))
        if not judged[-1].passed:
            why = judged[-1].body.get("why", "see its evidence")
            return Verdict(passed=False, reasons=(f"its latest evaluation, by {judged[-1].who}, failed: {why}",))
        return Verdict(passed=True)


def make_gate(setting: Literal["off", "required"]) -> Gate:
    """The gate that the setting names."""
    return EvidenceGate() if setting == "required" else OpenGate()
