"""What a gate lets pass."""

from __future__ import annotations

import pytest

from adapters.gate import EvidenceGate, OpenGate, make_gate, waits
from adapters.lifecycle import State
from adapters.values import Evidence, Kind, Origin, Version


def version(origin: Origin = "upload") -> Version:
    return Version(
        id="a",
        name="support",
        number=1,
        digest="sha256:a",
        state=State.VERIFIED,
        created_at=0.0,
        created_by="ann",
        base_digest="sha256:b",
        rank=8,
        alpha=16.0,
        bytes=1,
        coverage="all",
        origin=origin,
    )


def seen(kind: Kind, passed: bool, **body: str) -> Evidence:
    return Evidence(name="support", number=1, kind=kind, at=0.0, who="judge", passed=passed, body=body)


def test_an_open_gate_lets_everything_pass() -> None:
    assert OpenGate().decide(version(), ()).passed


def test_what_was_trained_here_needs_an_evaluation_as_well() -> None:
    verdict = EvidenceGate().decide(version("training"), ())
    assert verdict.reasons == ("it was made here, and has not been evaluated",)
    assert EvidenceGate().decide(version("training"), [seen("gate", True)]).passed


def test_what_was_trained_here_waits_until_it_has_passed() -> None:
    assert waits(version("training"), ())
    assert waits(version("training"), [seen("probe", True), seen("gate", True), seen("gate", False)])
    assert not waits(version("training"), [seen("gate", False), seen("gate", True)])
    assert not waits(version(), ())


@pytest.mark.parametrize("kind", ["static", "probe", "parity", "signature", "override"])
def test_no_other_evidence_stands_for_an_evaluation(kind: Kind) -> None:
    verdict = EvidenceGate().decide(version(), [seen(kind, True)])
    assert not verdict.passed
    assert verdict.reasons == ("it was not made here, and has not been evaluated",)


def test_the_latest_evaluation_counts() -> None:
    passed, failed = seen("gate", True), seen("gate", False, why="it refuses harmless questions")
    assert EvidenceGate().decide(version(), [failed, passed]).passed
    verdict = EvidenceGate().decide(version(), [passed, failed])
    assert verdict.reasons == ("its latest evaluation, by judge, failed: it refuses harmless questions",)


def test_the_setting_names_the_gate() -> None:
    assert isinstance(make_gate("off"), OpenGate)
    assert isinstance(make_gate("required"), EvidenceGate)
