"""Which bytes are deleted, which are kept, and what is said about it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.artifacts import Artifacts
from adapters.collect import Decision, collect, plan
from adapters.errors import Conflict, Unavailable
from adapters.lifecycle import State
from adapters.store import Draft, MemoryStore, Version

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens

NOW = 1_800_000_000.0
DAY_S = 86400.0
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
OLD = {DIGEST: NOW - 30 * DAY_S}
VERSION = Version(
    id="a",
    name="support",
    number=7,
    digest=DIGEST,
    state=State.VERIFIED,
    created_at=NOW - 30 * DAY_S,
    created_by="ann",
    base_digest="sha256:b",
    rank=8,
    alpha=16.0,
    bytes=1,
    coverage="all",
    moved_at=NOW - 30 * DAY_S,
)


def decided(*versions: Version, stored: Mapping[str, float] = OLD, held: Mapping[str, str] | None = None) -> Decision:
    [decision] = plan(versions, stored, held or {}, now=NOW)
    return decision


@pytest.mark.parametrize("state", [State.UPLOADED, State.CHECKED, State.PROBED, State.VERIFIED])
def test_a_version_on_its_way_or_in_service_needs_its_bytes(state: State) -> None:
    decision = decided(replace(VERSION, state=state))
    assert (decision.action, decision.why) == ("keep", f"support:7 is {state}")
    assert decision.versions == ("support:7",)


@pytest.mark.parametrize("state", [State.RETIRED, State.REJECTED])
def test_what_has_ended_is_kept_for_a_week_and_then_deleted(state: State) -> None:
    ended = replace(VERSION, state=state)
    assert decided(ended).why == f"support:7 is {state}, and nobody needs it"
    assert decided(ended).action == "delete"
    lately = decided(replace(ended, moved_at=NOW - 5 * DAY_S))
    assert (lately.action, lately.why) == (
        "keep",
        f"support:7 was {state} lately; its bytes are kept for 2.0 more days",
    )


def test_bytes_that_two_names_share_stay_while_one_needs_them() -> None:
    decision = decided(replace(VERSION, state=State.RETIRED), replace(VERSION, name="sales", number=1))
    assert (decision.action, decision.why) == ("keep", "sales:1 is verified")
    assert decision.versions == ("support:7", "sales:1")


def test_a_holder_keeps_bytes_by_their_digest_or_by_the_end_of_an_engines_name() -> None:
    retired = replace(VERSION, state=State.RETIRED)
    assert decided(retired, held={DIGEST: "the experiment tone runs on it"}).why == "the experiment tone runs on it"
    assert decided(retired, held={"a" * 16: "the replica one has it"}).action == "keep"
    assert decided(retired, held={OTHER: "no", "b" * 16: "no"}).action == "delete"


def test_young_bytes_without_a_version_are_left_to_whoever_put_them_there() -> None:
    young = decided(stored={DIGEST: NOW - 60})
    assert (young.action, young.why) == ("keep", "put there 60 s ago; what it is for may still be on its way")
    old = decided(stored={DIGEST: NOW - 7200})
    assert (old.action, old.why) == ("delete", "no version has these bytes: what put them there did not finish")


def test_an_interrupted_deletion_is_finished() -> None:
    assert decided(replace(VERSION, state=State.DELETED)).why == "its versions are deleted: a deletion did not finish"
    assert decided(replace(VERSION, state=State.DELETED)).action == "delete"
    assert plan([replace(VERSION, state=State.DELETED)], {}, {}, now=NOW) == ()


def test_a_version_whose_files_are_gone_is_said_to_be_so() -> None:
    assert decided(VERSION, stored={}).why == "support:7 is verified, but its files are gone: register the folder again"
    ended = decided(replace(VERSION, state=State.RETIRED), stored={})
    assert (ended.action, ended.why) == ("delete", "its files are gone already, and nobody needs them")


@dataclass
class Held:
    """A holder that says what it was told."""

    what: dict[str, str] = field(default_factory=dict)

    def holds(self) -> Mapping[str, str]:
        return self.what


class House:
    """A store and artifacts, with one adapter in them that was retired long ago."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.now = NOW - 30 * DAY_S
        self.folder = folder
        self.store = MemoryStore(clock=lambda: self.now)
        self.artifacts = Artifacts(root)
        self.digest = self.artifacts.add(folder)
        self.version = self.insert("support")
        self.store.move("support", 1, State.UPLOADED, State.RETIRED, who="ann", why="")
        self.now = NOW
        self.age()

    def insert(self, name: str) -> Version:
        return self.store.insert(
            Draft(
                name=name,
                digest=self.digest,
                created_by="ann",
                base_digest="sha256:b",
                rank=4,
                alpha=8,
                bytes=1,
                coverage="all",
            )
        )

    def age(self) -> None:
        for path in self.artifacts.root.iterdir():
            os.utime(path, (NOW - DAY_S, NOW - DAY_S))

    def collect(self, *holders: Held, dry_run: bool = False) -> tuple[Decision, ...]:
        return collect(self.store, self.artifacts, holders, dry_run=dry_run, clock=lambda: self.now)


@pytest.fixture
def house(specimens: Specimens, tmp_path: Path) -> House:
    return House(tmp_path / "artifacts", specimens.adapter())


def test_a_dry_run_changes_nothing(house: House) -> None:
    before = house.store.revision
    assert [decision.action for decision in house.collect(dry_run=True)] == ["delete"]
    assert house.artifacts.all() == {house.digest}
    assert (house.store.revision, house.store.get("support", 1).state) == (before, State.RETIRED)


def test_the_row_becomes_deleted_and_the_files_go(house: House) -> None:
    [decision] = house.collect()
    assert (decision.action, decision.digest) == ("delete", house.digest)
    assert house.store.get("support", 1).state is State.DELETED
    assert list(house.artifacts.root.iterdir()) == []
    [row] = house.store.audit(limit=1)
    assert (row.who, row.action, row.why) == ("gc", "deleted", "support:1 is retired, and nobody needs it")
    assert house.collect() == ()


def test_rows_that_were_deleted_before_are_left_as_they_are(house: House) -> None:
    house.collect()
    house.artifacts.add(house.folder)
    house.insert("support")
    house.store.move("support", 2, State.UPLOADED, State.REJECTED, who="ann", why="")
    house.age()
    house.now += 30 * DAY_S
    assert [decision.versions for decision in house.collect()] == [("support:1", "support:2")]
    assert [version.state for version in house.store.list()] == [State.DELETED, State.DELETED]


def test_what_a_holder_needs_stays(house: House) -> None:
    [decision] = house.collect(Held({house.digest: "a dataset was made with it"}))
    assert (decision.action, decision.why) == ("keep", "a dataset was made with it")
    assert house.artifacts.verify(house.digest)


def test_a_holder_that_does_not_answer_stops_everything(house: House) -> None:
    class Away:
        def holds(self) -> Mapping[str, str]:
            raise Unavailable("The experiments did not answer.")

    with pytest.raises(Unavailable):
        collect(house.store, house.artifacts, [Away()], dry_run=False, clock=lambda: NOW)
    assert house.artifacts.all() == {house.digest}


@dataclass
class Asked(Held):
    """A holder that needs nothing, and does something when it is asked."""

    do: Callable[[], object] = list

    def holds(self) -> Mapping[str, str]:
        self.do()
        return {}


def test_bytes_that_are_registered_again_after_the_plan_stay(house: House) -> None:
    asked = Asked(do=lambda: house.insert("sales"))  # the rows of the plan were read before
    [decision] = house.collect(asked)
    assert (decision.action, decision.why) == ("keep", "sales:1 is uploaded")
    assert house.store.get("support", 1).state is State.RETIRED
    assert house.artifacts.verify(house.digest)


def test_a_registration_in_progress_is_waited_for(house: House) -> None:
    committed, planning = threading.Event(), threading.Event()

    def register() -> None:
        with house.artifacts.kept():
            house.artifacts.add(house.folder)
            committed.set()
            assert planning.wait(10)
            house.insert("sales")

    def collecting() -> None:
        decisions.extend(house.collect(Asked(do=planning.set)))

    decisions: list[Decision] = []
    threads = [threading.Thread(target=register), threading.Thread(target=collecting)]
    threads[0].start()
    assert committed.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert [(decision.action, decision.why) for decision in decisions] == [("keep", "sales:1 is uploaded")]
    assert house.artifacts.verify(house.digest)


def test_a_version_that_somebody_else_moves_meanwhile_is_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Version:
        raise Conflict("support:1 is deleted, not retired: bob made it so.")

    monkeypatch.setattr(house.store, "move", refuse)
    [decision] = house.collect()
    assert (decision.action, decision.why) == ("keep", "support:1 is deleted, not retired: bob made it so.")
    assert house.artifacts.all() == {house.digest}


def test_bytes_nobody_registered_go_and_leftovers_of_crashes_are_swept(house: House) -> None:
    with house.artifacts.staged(house.folder) as copy:
        (copy / "README.md").chmod(0o644)
        (copy / "README.md").write_text("other bytes")
        orphan = house.artifacts.commit(copy)
    (house.artifacts.root / ".new-crashed").mkdir()
    house.age()
    os.utime(house.artifacts.root / ".new-crashed", (0, 0))
    assert {decision.digest: decision.action for decision in house.collect()} == {
        house.digest: "delete",
        orphan: "delete",
    }
    assert list(house.artifacts.root.iterdir()) == []


def test_the_same_bytes_can_be_registered_after_their_deletion(house: House) -> None:
    house.collect()
    assert house.artifacts.add(house.folder) == house.digest
    again = house.insert("support")
    assert (again.number, again.state) == (2, State.UPLOADED)
    assert [decision.why for decision in house.collect()] == ["support:2 is uploaded"]
