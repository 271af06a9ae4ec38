"""The verbs of the registry over the store in memory and real folders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.artifacts import Artifacts
from adapters.checks.modules import BaseModules
from adapters.errors import (
    BadName,
    BadSignature,
    Conflict,
    DigestMismatch,
    GateClosed,
    Gone,
    IllegalMove,
    NoProber,
    NotFound,
    Reason,
    Rejected,
    TooLarge,
    Unavailable,
)
from adapters.gate import EvidenceGate, Gate
from adapters.intake import FORCED_NOOP
from adapters.lifecycle import State
from adapters.limits import Limits
from adapters.registry import Registry, engine_name
from adapters.signing import Signatures, Signed
from adapters.store import MemoryStore, Version

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
NOW = 1_800_000_000.0
REASON = Reason(code="not_finite", field="probe", found="NaN", allowed="finite numbers", advice="Train again.")


class House:
    """A registry with everything behind it in reach."""

    def __init__(self, specimens: Specimens, modules: BaseModules, root: Path) -> None:
        self.specimens, self.modules = specimens, modules
        self.store = MemoryStore(clock=lambda: NOW)
        self.artifacts = Artifacts(root)
        self.registry = self.having()

    def having(
        self, *, gate: Gate | None = None, signatures: Signatures | None = None, probing: bool = True
    ) -> Registry:
        """The same registry with another gate, other signatures, or nothing that can probe."""
        return Registry(
            self.store,
            self.artifacts,
            self.modules,
            "sha256:base",
            Limits(),
            reserved=frozenset({"tidewell"}),
            gate=gate,
            signatures=signatures,
            probing=probing,
            clock=lambda: NOW,
        )

    def register(self, name: str = "support", *, seed: int = 0) -> Version:
        tensor = self.specimens.floats(4, 16, seed=seed)
        return self.registry.register(self.specimens.adapter(replace={A: tensor}), name=name, who="ann", note="first")

    def verified(self, name: str = "support", *, seed: int = 0) -> Version:
        """Verified, with no alias moved."""
        version = self.register(name, seed=seed)
        for expected, to in ((State.CHECKED, State.PROBED), (State.PROBED, State.VERIFIED)):
            version = self.store.move(name, version.number, expected, to, who="fleet", why="")
        return version


@pytest.fixture
def house(specimens: Specimens, modules: BaseModules, tmp_path: Path) -> House:
    return House(specimens, modules, tmp_path / "artifacts")


def test_a_good_adapter_is_checked_and_stored(house: House) -> None:
    version = house.register()
    assert (version.name, version.number, version.state) == ("support", 1, State.CHECKED)
    assert (version.rank, version.alpha, version.coverage) == (4, 8.0, "4 of 14 modules")
    assert (version.created_by, version.note, version.base_digest) == ("ann", "first", "sha256:base")
    assert house.artifacts.verify(version.digest).name == version.digest.removeprefix("sha256:")
    assert [row.action for row in house.store.audit()] == ["checked", "registered"]


def test_an_adapter_that_was_forced_carries_a_label_for_its_probe(house: House) -> None:
    assert FORCED_NOOP not in house.register().labels
    folder = house.specimens.adapter(replace={A: house.specimens.floats(4, 16, seed=9)})
    forced = house.registry.register(folder, name="support", who="ann", force_noop=True)
    assert FORCED_NOOP in forced.labels


def test_the_engine_sees_a_name_with_the_digest_in_it(house: House) -> None:
    version = house.register()
    assert engine_name(version) == f"support@{version.digest[7:23]}"


def test_the_same_bytes_again_are_the_same_version(house: House) -> None:
    first = house.register()
    assert house.register() == first
    assert house.verified().number == 1
    assert house.register().state is State.VERIFIED


def test_the_same_bytes_under_another_name_share_the_artifact(house: House) -> None:
    one, other = house.register(), house.register("sales")
    assert (one.digest, other.number) == (other.digest, 1)
    assert house.artifacts.all() == {one.digest}


def test_other_bytes_are_the_next_version(house: House) -> None:
    assert [house.register(seed=seed).number for seed in (1, 2, 3)] == [1, 2, 3]


def test_a_broken_adapter_leaves_no_trace(house: House) -> None:
    broken = house.specimens.adapter(replace={A: house.specimens.floats(4, 16, fill=math.nan)})
    with pytest.raises(Rejected, match="NaN"):
        house.registry.register(broken, name="support", who="ann")
    assert house.store.list() == ()
    assert list(house.artifacts.root.iterdir()) == []


def test_a_folder_of_other_things_is_not_even_copied(house: House) -> None:
    with pytest.raises(Rejected, match="pickle"):
        house.registry.register(house.specimens.adapter(files={"a.pkl": b"x"}), name="support", who="ann")
    assert not house.artifacts.root.exists()


@pytest.mark.parametrize("name", ["tidewell", "Support", "a@b", ""])
def test_names_that_mislead_are_refused_before_anything_is_read(name: str, house: House) -> None:
    with pytest.raises(BadName):
        house.registry.register(Path("/nowhere"), name=name, who="ann")


def test_a_folder_that_is_not_there_says_what_is_missing(house: House) -> None:
    with pytest.raises(Rejected, match=r"adapter_config\.json"):
        house.registry.register(Path("/nowhere"), name="support", who="ann")


def test_a_folder_that_cannot_be_read_is_no_verdict_on_the_adapter(house: House) -> None:
    with pytest.raises(Unavailable, match="could not be read"):
        house.registry.check(Path("/" + "x" * 300), name="support")


def test_a_folder_that_grows_while_it_is_copied_is_stopped(
    house: House, modules: BaseModules, specimens: Specimens
) -> None:
    with pytest.raises((TooLarge, Rejected)):
        Registry(house.store, house.artifacts, modules, "b", Limits(bytes_max=100)).register(
            specimens.adapter(), name="support", who="ann"
        )


def test_a_store_that_does_not_answer_is_unavailable(house: House, modules: BaseModules, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    registry = Registry(house.store, Artifacts(tmp_path / "file"), modules, "b")
    with pytest.raises(Unavailable, match="artifact store"):
        registry.register(house.specimens.adapter(), name="support", who="ann")


def test_the_probe_is_a_step_of_its_own_and_may_be_repeated(house: House) -> None:
    version = house.registry.probed(house.register(), who="prober", note="effect 0.001", labels=("weak_effect",))
    assert (version.state, version.labels) == (State.PROBED, ("weak_effect",))
    assert house.registry.probed(version, who="prober") == version
    admitted = house.registry.admit(version, who="fleet", note="on 2 replicas")
    assert house.registry.probed(version, who="prober") == admitted
    assert [(row.who, row.after, row.why) for row in house.store.audit()] == [
        ("fleet", "1", "first verified version"),
        ("fleet", "verified", "on 2 replicas"),
        ("prober", "probed", "effect 0.001"),
        ("ann", "checked", "the static and numeric checks passed"),
        ("ann", "uploaded", "first"),
    ]


@pytest.mark.parametrize("end", ["retire", "reject"])
def test_what_has_ended_is_not_probed(end: str, house: House) -> None:
    version = house.register()
    if end == "retire":
        house.registry.retire("support", 1, who="ann", why="")
    else:
        house.registry.rejected(version, [REASON], who="fleet")
    with pytest.raises(IllegalMove):
        house.registry.probed(version, who="prober")


def test_admission_takes_the_first_version_live_and_makes_later_ones_candidates(house: House) -> None:
    for seed in (1, 2, 3):
        house.registry.admit(house.register(seed=seed), who="fleet")
    assert [(a.alias, a.number) for a in house.store.aliases()] == [("candidate", 3), ("live", 1)]
    assert house.registry.admit(house.store.get("support", 2), who="fleet").state is State.VERIFIED
    assert house.store.alias("support", "candidate").number == 3


def test_a_version_that_showed_itself_broken_gives_its_aliases_back(house: House) -> None:
    for seed in (1, 2):
        house.registry.admit(house.register(seed=seed), who="fleet")
    house.registry.promote("support", 2, who="ann", why="better")
    withdrawn = house.registry.withdraw(house.store.get("support", 2), [REASON], who="tripwire")
    assert (withdrawn.state, withdrawn.reasons) == (State.REJECTED, (REASON,))
    assert [(a.alias, a.number, a.why) for a in house.store.aliases()] == [("live", 1, str(REASON))]
    assert house.registry.withdraw(withdrawn, [], who="tripwire", why="again") == withdrawn
    with pytest.raises(IllegalMove, match="nothing to go back to"):
        house.registry.rollback("support", who="ann", why="")


def test_a_dry_run_says_what_registration_would_and_stores_nothing(house: House) -> None:
    folder = house.specimens.adapter()
    checked = house.registry.check(folder, name="support")
    assert (checked.report.rank, checked.known, checked.signed) == (4, None, None)
    assert house.store.list() == ()
    assert not house.artifacts.root.exists()
    version = house.registry.register(folder, name="support", who="ann")
    assert (version.digest, version.rank, version.bytes) == (checked.digest, checked.report.rank, checked.report.bytes)
    assert house.registry.check(folder, name="support").known == version
    assert house.registry.check(folder, name="sales").known is None
    house.registry.retire("support", 1, who="ann", why="")
    assert house.registry.check(folder, name="support").known is None


def test_a_dry_run_refuses_what_registration_refuses(house: House) -> None:
    broken = house.specimens.adapter(replace={A: house.specimens.floats(4, 16, fill=math.nan)})
    with pytest.raises(Rejected, match="NaN"):
        house.registry.check(broken, name="support")
    with pytest.raises(Rejected, match="pickle"):
        house.registry.check(house.specimens.adapter(files={"a.pkl": b"x"}), name="support")
    with pytest.raises(BadName):
        house.registry.check(house.specimens.adapter(), name="tidewell")
    with pytest.raises(BadSignature):
        house.having(signatures=Signer(by="")).check(house.specimens.adapter(), name="support")


def test_what_the_checks_found_is_kept_as_evidence(house: House) -> None:
    version = house.registry.register(
        house.specimens.adapter(), name="support", who="ann", origin="training", source="s3://box/support"
    )
    assert (version.origin, version.source) == ("training", "s3://box/support")
    [static] = house.registry.evidence("support", 1)
    assert (static.kind, static.passed, static.who, static.at) == ("static", True, "ann", NOW)
    assert static.body["coverage"] == version.coverage
    assert static.body["modules"] == 4


def test_without_a_prober_only_what_is_said_to_be_unprobed_is_taken(house: House) -> None:
    registry = house.having(probing=False)
    with pytest.raises(NoProber, match="probe_url"):
        registry.register(house.specimens.adapter(), name="support", who="ann")
    assert house.store.list() == ()
    version = registry.register(house.specimens.adapter(), name="support", who="ann", unprobed=True)
    assert version.labels == ("unprobed",)
    assert registry.admit(version, who="fleet").state is State.VERIFIED


class Signer:
    """Says that everything is signed by one key, or refuses."""

    def __init__(self, *, by: str) -> None:
        self.by = by
        self.looked: list[Path] = []

    def verify(self, folder: Path) -> Signed | None:
        self.looked.append(folder)
        if not self.by:
            raise BadSignature("No key that is trusted here made this signature.")
        return Signed(by=self.by)


def test_signatures_are_looked_at_on_our_copy_and_again_before_a_load(house: House) -> None:
    signer = Signer(by="release.pem")
    registry, folder = house.having(signatures=signer), house.specimens.adapter()
    registry.register(folder, name="support", who="ann")
    [signature] = registry.evidence("support", 1, "signature")
    assert signature.body == {"by": "release.pem"}
    assert folder not in signer.looked
    path = registry.verify("support", 1)
    assert signer.looked[-1] == path
    signer.by = ""
    with pytest.raises(BadSignature):
        registry.verify("support", 1)
    with pytest.raises(BadSignature):
        registry.register(house.specimens.adapter(config={"lora_alpha": 4}), name="support", who="ann")
    assert len(house.store.list()) == 1


def test_behind_a_closed_gate_nothing_goes_live_by_itself_or_without_a_reason(house: House) -> None:
    registry = house.having(gate=EvidenceGate())
    registry.admit(house.register(), who="fleet")
    assert [a.alias for a in house.store.aliases()] == ["candidate"]
    with pytest.raises(GateClosed, match="it was not made here, and has not been evaluated"):
        registry.promote("support", 1, who="ann", why="ready")
    moved = registry.promote("support", 1, who="ann", why="ready", override="the pager is ringing")
    assert (moved.alias, moved.number, moved.why) == ("live", 1, "ready")
    [override] = registry.evidence("support", 1, "override")
    assert override.body["why"] == "the pager is ringing"
    assert override.body["gate"] == ["it was not made here, and has not been evaluated"]
    story = [(row.action, row.subject, row.after, row.why) for row in house.store.audit(limit=2)]
    assert story == [
        ("pointed", "support@live", "1", "ready"),
        ("overrode", "support:1", "support@live", "the pager is ringing"),
    ]


def test_a_reason_that_was_not_needed_is_no_override(house: House) -> None:
    house.verified()
    house.registry.promote("support", 1, who="ann", why="", override="to be safe")
    assert house.registry.evidence("support", 1, "override") == ()
    assert [row.action for row in house.store.audit(limit=1)] == ["pointed"]


def test_the_gate_is_asked_for_live_alone_and_only_when_it_moves(house: House) -> None:
    open_, closed = house.registry, house.having(gate=EvidenceGate())
    for seed in (1, 2):
        house.verified(seed=seed)
    closed.promote("support", 1, alias="canary", who="ann", why="")
    open_.promote("support", 1, who="ann", why="")
    assert closed.promote("support", 1, who="ann", why="", on_unavailable="base").on_unavailable == "base"
    open_.promote("support", 2, who="ann", why="")
    assert closed.rollback("support", who="ann", why="now").number == 1


def test_a_version_that_is_not_verified_hears_so_and_not_of_the_gate(house: House) -> None:
    house.register()
    with pytest.raises(IllegalMove, match="support:1 is checked"):
        house.having(gate=EvidenceGate()).promote("support", 1, who="ann", why="")


def test_a_failed_override_leaves_nothing_behind(house: House) -> None:
    house.verified()
    with pytest.raises(Conflict):
        house.having(gate=EvidenceGate()).promote("support", 1, expected=7, who="ann", why="", override="now")
    assert house.registry.evidence("support", 1, "override") == ()


def test_what_was_deleted_says_so(house: House) -> None:
    version = house.verified()
    house.registry.retire("support", 1, who="ann", why="")
    house.store.move("support", 1, State.RETIRED, State.DELETED, who="gc", why="")
    for verb in (
        lambda: house.registry.verify("support", 1),
        lambda: house.registry.promote("support", 1, who="ann", why=""),
    ):
        with pytest.raises(Gone, match="support:1 was deleted"):
            verb()
    with pytest.raises(IllegalMove, match="support:1 is deleted"):
        house.registry.admit(version, who="fleet")
    with pytest.raises(IllegalMove):
        house.registry.withdraw(version, [REASON], who="fleet")


def test_aliases_are_pinned_and_stay_so_when_they_move(house: House) -> None:
    for seed in (1, 2):
        house.verified(seed=seed)
    house.registry.promote("support", 1, who="ann", why="")
    assert house.registry.pin("support", "live", True, who="ann", why="guard").pinned
    assert house.registry.promote("support", 2, who="ann", why="").pinned
    assert not house.registry.pin("support", "live", False, who="ann", why="").pinned


def test_rejection_keeps_its_reasons_and_is_final(house: House) -> None:
    version = house.registry.rejected(house.register(), [REASON], who="fleet")
    assert (version.state, version.reasons) == (State.REJECTED, (REASON,))
    assert house.registry.rejected(version, [], who="fleet") == version
    assert house.store.audit()[0].why == str(REASON)
    with pytest.raises(IllegalMove):
        house.registry.admit(version, who="fleet")


def test_rejected_bytes_may_be_tried_again_as_a_new_version(house: House) -> None:
    house.registry.rejected(house.register(), [REASON], who="fleet")
    again = house.register()
    assert (again.number, again.state) == (2, State.CHECKED)


def test_only_verified_versions_are_promoted(house: House) -> None:
    house.register()
    with pytest.raises(IllegalMove, match="support:1 is checked"):
        house.registry.promote("support", 1, who="ann", why="ready")
    with pytest.raises(NotFound, match="support:9"):
        house.registry.promote("support", 9, who="ann", why="ready")


def test_promotion_and_rollback_move_the_alias_back_and_forth(house: House) -> None:
    for seed in (1, 2):
        house.verified(seed=seed)
    assert house.registry.promote("support", 1, expected=None, who="ann", why="first").previous is None
    live = house.registry.promote("support", 2, expected=1, who="bob", why="better")
    assert (live.number, live.previous, live.moved_by, live.revision) == (2, 1, "bob", 2)
    assert house.registry.rollback("support", who="ann", why="worse").number == 1
    assert house.registry.rollback("support", who="ann", why="no, better").number == 2


def test_a_promotion_from_another_version_than_believed_says_who_was_there(house: House) -> None:
    for seed in (1, 2, 3):
        house.verified(seed=seed)
    house.registry.promote("support", 1, who="ann", why="first")
    house.registry.promote("support", 2, expected=1, who="bob", why="better")
    with pytest.raises(Conflict, match="bob moved it at 2027-01-15 08:00:00 UTC") as caught:
        house.registry.promote("support", 3, expected=1, who="ann", why="best")
    assert caught.value.moved_by == "bob"


def test_there_is_nothing_to_roll_back_to_at_first(house: House) -> None:
    house.verified()
    with pytest.raises(NotFound):
        house.registry.rollback("support", who="ann", why="")
    house.registry.promote("support", 1, who="ann", why="")
    with pytest.raises(IllegalMove, match="nothing to go back to"):
        house.registry.rollback("support", who="ann", why="")


def test_aliases_have_names_like_adapters(house: House) -> None:
    house.verified()
    with pytest.raises(BadName, match="alias"):
        house.registry.promote("support", 1, alias="Live!", who="ann", why="")


def test_what_happens_when_a_version_cannot_be_served_is_kept_by_moves(house: House) -> None:
    for seed in (1, 2):
        house.verified(seed=seed)
    assert house.registry.promote("support", 1, who="ann", why="").on_unavailable == "fail"
    assert house.registry.promote("support", 1, who="ann", why="", on_unavailable="base").on_unavailable == "base"
    moved = house.registry.promote("support", 2, who="ann", why="")
    assert (moved.on_unavailable, moved.previous) == ("base", 1)


def test_a_live_version_is_not_retired_by_mistake(house: House) -> None:
    house.verified()
    house.registry.promote("support", 1, who="ann", why="")
    with pytest.raises(Conflict, match="support@live points at it, moved there by ann"):
        house.registry.retire("support", 1, who="bob", why="old")
    retired = house.registry.retire("support", 1, who="bob", why="old", take_down=True)
    assert retired.state is State.RETIRED
    assert house.store.aliases() == ()
    assert house.registry.retire("support", 1, who="bob", why="again") == retired


def test_names_are_resolved_to_versions(house: House) -> None:
    for seed in (1, 2):
        house.verified(seed=seed)
    house.registry.promote("support", 1, who="ann", why="")
    house.registry.promote("support", 2, alias="candidate", who="ann", why="")
    asked = ["support", "support@live", "support@candidate", "support:2"]
    assert [house.registry.resolve_name(model).number for model in asked] == [1, 1, 2, 2]
    with pytest.raises(NotFound):
        house.registry.resolve_name("sales")


def test_verify_reads_the_bytes_again(house: House) -> None:
    version = house.register()
    path = house.registry.verify("support", 1)
    weights = path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(DigestMismatch):
        house.registry.verify("support", 1)
    assert house.register() == version
    assert house.registry.verify("support", 1) == path
