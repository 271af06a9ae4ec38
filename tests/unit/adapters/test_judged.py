"""Versions that our own training made: what its maker saw of them is kept, and until they are judged they wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.artifacts import Artifacts
from adapters.card import card
from adapters.checks.modules import BaseModules
from adapters.errors import NoProber, Reason
from adapters.gate import EvidenceGate
from adapters.lifecycle import State
from adapters.registry import Registry
from adapters.store import MemoryStore, Version
from adapters.values import Evidence

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

WORSE = Reason(code="gate_failed", field="held.exact", found="0.2", allowed="at least 0.9", advice="Train again.")
TOLD = {
    "method": "dpo",
    "dataset": {"dataset": "sha256:abc"},
    "numbers": {"loss_last": 0.123456},
    "curves": {"word": "over_fitted", "evidence": "The held-out loss rose.", "change": "Set optim.patience."},
}


class House:
    def __init__(self, specimens: Specimens, modules: BaseModules, root: Path) -> None:
        self.store = MemoryStore(clock=lambda: 1.0)
        self.specimens, self.modules, self.root = specimens, modules, root
        self.registry = self.having()

    def having(self, *, probing: bool = True, gate: EvidenceGate | None = None) -> Registry:
        return Registry(
            self.store, Artifacts(self.root), self.modules, "sha256:b", probing=probing, gate=gate, clock=lambda: 1.0
        )

    def trained(self) -> Version:
        folder = self.specimens.adapter()
        return self.registry.register(folder, name="support", who="job", origin="training", found={"training": TOLD})

    def probed(self) -> Version:
        return self.registry.probed(self.trained(), who="fleet")


@pytest.fixture
def house(specimens: Specimens, modules: BaseModules, tmp_path: Path) -> House:
    return House(specimens, modules, tmp_path / "artifacts")


def test_what_its_maker_saw_is_kept_with_its_registration(house: House) -> None:
    version = house.trained()
    (told,) = house.registry.evidence("support", 1, "training")
    assert (told.subject, told.passed, told.body["method"]) == ("trainer", True, "dpo")
    assert version.state is State.CHECKED


def test_a_recording_of_its_maker_stands_for_a_prober(house: House) -> None:
    bare = house.having(probing=False)
    with pytest.raises(NoProber):
        bare.register(house.specimens.adapter(), name="support", who="job", origin="training", found={"training": {}})
    version = bare.register(house.specimens.adapter(), name="support", who="job", found={"probe": {"by": "trainer"}})
    assert version.state is State.CHECKED
    assert version.labels == ()


def test_what_passed_may_be_admitted_and_is_a_candidate_though_nothing_is_live(house: House) -> None:
    version = house.probed()
    assert house.registry.waits(version)
    assert house.registry.judged(version, [], who="gate", body={"why": "5 checks passed"}) == version
    assert not house.registry.waits(version)
    admitted = house.registry.admit(version, who="fleet")
    assert admitted.state is State.VERIFIED
    assert [(alias.alias, alias.number) for alias in house.store.aliases()] == [("candidate", 1)]
    assert house.having(gate=EvidenceGate()).promote("support", 1, who="ann", why="better").number == 1


def test_what_failed_is_rejected_with_its_reasons_and_its_verdict_in_one_step(house: House) -> None:
    version = house.probed()
    rejected = house.registry.judged(version, [WORSE], who="gate", body={"why": "held.exact"})
    assert (rejected.state, rejected.reasons) == (State.REJECTED, (WORSE,))
    (verdict,) = house.registry.evidence("support", 1, "gate")
    assert (verdict.passed, verdict.who, verdict.body) == (False, "gate", {"why": "held.exact"})
    assert house.registry.judged(rejected, [WORSE], who="gate", body={}) == rejected
    assert len(house.registry.evidence("support", 1, "gate")) == 1


def test_one_that_serves_already_stays_and_may_no_more_become_live(house: House) -> None:
    version = house.probed()
    house.registry.judged(version, [], who="gate", body={})
    house.registry.admit(version, who="fleet")
    assert house.registry.judged(version, [WORSE], who="gate", body={"why": "worse"}).state is State.VERIFIED
    verdict = EvidenceGate().decide(house.store.get("support", 1), house.registry.evidence("support", 1))
    assert verdict.reasons == ("its latest evaluation, by gate, failed: worse",)


def test_its_card_says_what_it_was_made_from_and_what_it_was_judged_by(house: House) -> None:
    version = house.probed()
    table = [{"what": "held.exact", "asked": "at least 0.9", "found": "0.95 | <b>", "passed": True, "note": False}]
    house.registry.judged(version, [], who="gate", body={"table": table})
    text = card(version, house.registry.evidence("support", 1), {})
    assert 'tags: ["lora", "peft", "graftline", "trl", "dpo", "base_model:adapter:tiny"]' in text
    assert "| Learnt from | `sha256:abc` |" in text
    assert "| loss_last | `0.1235` |" in text
    assert "Its curves: `over-fitted`. `The held-out loss rose. Set optim.patience.`" in text
    assert "| `held.exact` | `at least 0.9` | `0.95 ¦ <b>` | passed |" in text
    uploaded = card(version, [], {})
    assert "How it was trained" not in uploaded
    assert "What it was evaluated for" not in uploaded


def test_a_card_makes_nothing_of_words_that_are_none_of_ours(house: House) -> None:
    version = house.trained()
    odd = Evidence(
        name="support", number=1, kind="training", at=0, who="x", passed=True, body={"method": "x: [", "rows": 3}
    )
    assert 'tags: ["lora", "peft", "graftline", "base_model:' in card(version, [odd], {})
