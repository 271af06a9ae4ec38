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
    Conflict,
    DigestMismatch,
    IllegalMove,
    NotFound,
    Reason,
    Rejected,
    TooLarge,
    Unavailable,
)
from adapters.lifecycle import State
from adapters.limits import Limits
from adapters.registry import Registry, engine_name
from adapters.store import MemoryStore, Version

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
REASON = Reason(code="not_finite", field="probe", found="NaN", allowed="finite numbers", advice="Train again.")


class House:
    """A registry with everything behind it in reach."""

    def __init__(self, specimens: Specimens, modules: BaseModules, root: Path) -> None:
        self.specimens = specimens
        self.store = MemoryStore(clock=lambda: 1_800_000_000.0)
        self.artifacts = Artifacts(root)
        self.registry = Registry(
            self.store, self.artifacts, modules, "sha256:base", Limits(), reserved=frozenset({"tidewell"})
        )

    def register(self, name: str = "support", *, seed: int = 0) -> Version:
        tensor = self.specimens.floats(4, 16, seed=seed)
        return self.registry.register(self.specimens.adapter(replace={A: tensor}), name=name, who="ann", note="first")

    def verified(self, name: str = "support", *, seed: int = 0) -> Version:
        return self.registry.verified(self.register(name, seed=seed), who="fleet", note="effect 2.5")


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


def test_verification_goes_through_the_probe_and_may_be_repeated(house: House) -> None:
    version = house.verified()
    assert version.state is State.VERIFIED
    assert house.registry.verified(version, who="fleet").state is State.VERIFIED
    assert [row.after for row in house.store.audit()] == ["verified", "probed", "checked", "uploaded"]
    assert house.store.audit()[0].why == "effect 2.5"


def test_verification_goes_on_after_a_crash_between_its_two_steps(house: House) -> None:
    version = house.register()
    house.store.move("support", 1, State.CHECKED, State.PROBED, who="fleet", why="")
    assert house.registry.verified(version, who="fleet").state is State.VERIFIED


def test_rejection_keeps_its_reasons_and_is_final(house: House) -> None:
    version = house.registry.rejected(house.register(), [REASON], who="fleet")
    assert (version.state, version.reasons) == (State.REJECTED, (REASON,))
    assert house.registry.rejected(version, [], who="fleet") == version
    assert house.store.audit()[0].why == str(REASON)
    with pytest.raises(IllegalMove):
        house.registry.verified(version, who="fleet")


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
