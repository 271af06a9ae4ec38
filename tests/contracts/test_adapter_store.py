"""What every store of adapters does: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapters import sql
from adapters.errors import AdapterError, Conflict, IllegalMove, NotFound, Reason, Unavailable
from adapters.lifecycle import State
from adapters.store import Draft, MemoryStore, Store, Version
from monitoring.database import connect, reading, revision

NOW = 1_800_000_000.0
DIGEST = "sha256:" + "a" * 64
DRAFT = Draft(
    name="support",
    digest=DIGEST,
    created_by="ann",
    base_digest="sha256:" + "b" * 64,
    rank=8,
    alpha=16.0,
    bytes=5_000_000_000,
    coverage="28 of 28 modules",
    note="naïve “quotes” and 🙂",
)
REASON = Reason(code="not_finite", field="probe", found="NaN", allowed="finite numbers", advice="Train again.")
STEPS = [(State.UPLOADED, State.CHECKED), (State.CHECKED, State.PROBED), (State.PROBED, State.VERIFIED)]


@dataclass(frozen=True)
class House:
    """A store, and the revision that gateways watch."""

    store: Store
    revision: Callable[[], int]

    def verified(self, draft: Draft = DRAFT) -> Version:
        version = self.store.insert(draft)
        for expected, to in STEPS:
            version = self.store.move(version.name, version.number, expected, to, who="fleet", why="step")
        return version


def on(url: str) -> Iterator[House]:
    engine = connect(url)
    store = sql.SqlStore(engine, clock=lambda: NOW)

    def seen() -> int:
        with reading(engine).begin() as connection:
            return revision(connection)

    with engine.begin() as connection:
        for table in (sql.AUDIT, sql.ALIASES, sql.VERSIONS):
            connection.execute(sa.delete(table))
    yield House(store, seen)
    engine.dispose()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "memory":
        memory = MemoryStore(clock=lambda: NOW)
        yield House(memory, lambda: memory.revision)
    elif request.param == "sqlite":
        yield from on(f"sqlite:///{tmp_path}/control.db")
    else:
        yield from on(request.getfixturevalue("postgres_url"))


def other(digit: str, name: str = "support") -> Draft:
    return replace(DRAFT, digest="sha256:" + digit * 64, name=name)


def test_a_new_version_begins_uploaded_with_the_next_number_of_its_name(house: House) -> None:
    first = house.store.insert(DRAFT)
    assert (first.number, first.state, first.created_at, first.reasons) == (1, State.UPLOADED, NOW, ())
    assert (first.bytes, first.alpha, first.note, first.coverage) == (DRAFT.bytes, 16.0, DRAFT.note, DRAFT.coverage)
    assert house.store.insert(other("c")).number == 2
    assert house.store.insert(other("c", "sales")).number == 1
    assert house.store.get("support", 1) == first


def test_the_same_bytes_are_the_same_version_until_it_leaves(house: House) -> None:
    first = house.store.insert(DRAFT)
    before = house.revision()
    assert house.store.insert(replace(DRAFT, created_by="bob", note="again")) == first
    assert house.revision() == before
    house.store.move("support", 1, State.UPLOADED, State.REJECTED, who="ann", why="")
    assert house.store.insert(DRAFT).number == 2
    house.store.move("support", 2, State.UPLOADED, State.RETIRED, who="ann", why="")
    assert house.store.insert(DRAFT).number == 3
    assert [version.number for version in house.store.by_digest(DIGEST)] == [1, 2, 3]


def test_versions_are_listed_by_name_and_number(house: House) -> None:
    for draft in (DRAFT, other("c", "sales"), other("d")):
        house.store.insert(draft)
    assert [(v.name, v.number) for v in house.store.list()] == [("sales", 1), ("support", 1), ("support", 2)]
    assert [v.number for v in house.store.list("support")] == [1, 2]
    assert house.store.list("nobody") == ()
    assert house.store.by_digest("sha256:nothing") == ()


@pytest.mark.parametrize("state", [None, State.UPLOADED])
def test_what_is_not_there_is_not_found(state: State | None, house: House) -> None:
    with pytest.raises(NotFound, match="support:1"):
        house.store.get("support", 1)
    with pytest.raises(NotFound, match="support@live"):
        house.store.alias("support", "live")
    with pytest.raises(NotFound):
        house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why="")
    with pytest.raises(NotFound):
        house.store.point("support", "live", expected=None, to=1, who="ann", why="")


def test_a_move_changes_the_state_and_nothing_else(house: House) -> None:
    first = house.store.insert(DRAFT)
    moved = house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="fleet", why="fine")
    assert moved == replace(first, state=State.CHECKED) == house.store.get("support", 1)


def test_a_rejection_keeps_its_reasons(house: House) -> None:
    house.store.insert(DRAFT)
    house.store.move("support", 1, State.UPLOADED, State.REJECTED, who="fleet", why="", reasons=[REASON, REASON])
    assert house.store.get("support", 1).reasons == (REASON, REASON)
    house.store.move("support", 1, State.REJECTED, State.DELETED, who="fleet", why="")
    assert house.store.get("support", 1).reasons == (REASON, REASON)


def test_a_move_from_another_state_says_who_made_it_so(house: House) -> None:
    house.store.insert(DRAFT)
    house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="bob", why="")
    with pytest.raises(Conflict, match="support:1 is checked, not uploaded: bob made it so at 2027") as caught:
        house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why="")
    assert (caught.value.moved_by, caught.value.moved_at) == ("bob", NOW)


def test_moves_outside_the_table_are_refused(house: House) -> None:
    house.store.insert(DRAFT)
    with pytest.raises(IllegalMove, match="from uploaded to verified"):
        house.store.move("support", 1, State.UPLOADED, State.VERIFIED, who="ann", why="")
    assert house.store.get("support", 1).state is State.UPLOADED


def test_an_alias_is_moved_by_compare_and_set(house: House) -> None:
    house.verified()
    house.verified(other("c"))
    made = house.store.point("support", "live", expected=None, to=1, who="ann", why="first")
    assert (made.number, made.previous, made.revision, made.on_unavailable) == (1, None, 1, "fail")
    moved = house.store.point("support", "live", expected=1, to=2, who="bob", why="better", on_unavailable="previous")
    assert (moved.number, moved.previous, moved.revision, moved.moved_by, moved.moved_at) == (2, 1, 2, "bob", NOW)
    assert house.store.alias("support", "live") == moved
    with pytest.raises(Conflict, match=r"points at version 2, not at version 1: bob moved it at") as caught:
        house.store.point("support", "live", expected=1, to=1, who="ann", why="")
    assert (caught.value.moved_by, caught.value.moved_at) == ("bob", NOW)
    with pytest.raises(Conflict, match="not at nothing"):
        house.store.point("support", "live", expected=None, to=1, who="ann", why="")
    with pytest.raises(Conflict, match="points at nothing, not at version 1"):
        house.store.point("support", "candidate", expected=1, to=1, who="ann", why="")


def test_pointing_at_the_same_version_keeps_what_was_before(house: House) -> None:
    house.verified()
    house.verified(other("c"))
    house.store.point("support", "live", expected=None, to=1, who="ann", why="")
    house.store.point("support", "live", expected=1, to=2, who="ann", why="")
    kept = house.store.point("support", "live", expected=2, to=2, who="ann", why="", on_unavailable="base")
    assert (kept.previous, kept.on_unavailable, kept.revision) == (1, "base", 3)
    assert house.store.point("support", "live", expected=2, to=1, who="ann", why="").on_unavailable == "base"


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_alias_points_at_verified_versions_only(steps: int, house: House) -> None:
    house.store.insert(DRAFT)
    for expected, to in STEPS[:steps]:
        house.store.move("support", 1, expected, to, who="fleet", why="")
    with pytest.raises(IllegalMove, match="verified versions only"):
        house.store.point("support", "live", expected=None, to=1, who="ann", why="")
    assert house.store.aliases() == ()


@pytest.mark.parametrize("to", [State.RETIRED, State.REJECTED])
def test_what_an_alias_points_at_stays_verified(to: State, house: House) -> None:
    house.verified()
    house.store.point("support", "live", expected=None, to=1, who="ann", why="")
    with pytest.raises(Conflict, match=f"cannot become {to}: support@live points at it, moved there by ann"):
        house.store.move("support", 1, State.VERIFIED, to, who="bob", why="")
    assert house.store.get("support", 1).state is State.VERIFIED


def test_aliases_can_be_taken_down_with_their_version(house: House) -> None:
    house.verified()
    house.verified(other("c"))
    for alias, number in (("live", 1), ("candidate", 1), ("next", 2)):
        house.store.point("support", alias, expected=None, to=number, who="ann", why="")
    house.store.move("support", 1, State.VERIFIED, State.RETIRED, who="bob", why="broken", take_down=True)
    assert [alias.alias for alias in house.store.aliases("support")] == ["next"]
    assert [row.action for row in house.store.audit("support", 3)] == ["retired", "taken_down", "taken_down"]


def test_aliases_are_listed_by_name(house: House) -> None:
    for name in ("support", "sales"):
        house.verified(other("c", name))
        house.store.point(name, "live", expected=None, to=1, who="ann", why="")
    assert [alias.name for alias in house.store.aliases()] == ["sales", "support"]
    assert [alias.name for alias in house.store.aliases("sales")] == ["sales"]


def test_every_change_moves_the_revision_and_no_refusal_does(house: House) -> None:
    seen = [house.revision()]

    def changed() -> bool:
        seen.append(house.revision())
        return seen[-1] > seen[-2]

    house.store.insert(DRAFT)
    assert changed()
    house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why="")
    assert changed()
    refusals: list[Callable[[], object]] = [
        lambda: house.store.point("support", "live", expected=None, to=1, who="ann", why=""),
        lambda: house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why=""),
        lambda: house.store.get("support", 2),
    ]
    for refusal in refusals:
        with pytest.raises(AdapterError):
            refusal()
        assert not changed()
    house.store.list()
    house.store.audit()
    assert not changed()


def test_the_audit_tells_the_whole_story_newest_first(house: House) -> None:
    house.verified()
    house.store.point("support", "live", expected=None, to=1, who="bob", why="go")
    house.store.insert(other("c", "sales"))
    story = [(row.who, row.action, row.subject, row.before, row.after) for row in house.store.audit("support")]
    assert story == [
        ("bob", "pointed", "support@live", "", "1"),
        ("fleet", "verified", "support:1", "probed", "verified"),
        ("fleet", "probed", "support:1", "checked", "probed"),
        ("fleet", "checked", "support:1", "uploaded", "checked"),
        ("ann", "registered", "support:1", "", "uploaded"),
    ]
    assert [row.subject for row in house.store.audit(limit=1)] == ["sales:1"]
    assert house.store.audit("support")[0].why == "go"
    assert house.store.audit("support")[0].at == NOW


def test_only_one_of_many_racing_promotions_wins(house: House) -> None:
    numbers = [house.verified(other(digit)).number for digit in "12345678"]
    start, won, lost = threading.Barrier(len(numbers)), [], []

    def promote(number: int) -> None:
        start.wait()
        try:
            won.append(house.store.point("support", "live", expected=None, to=number, who=str(number), why="race"))
        except Conflict as error:
            lost.append(error)

    together([partial(promote, number) for number in numbers])
    assert len(won) == 1
    assert {error.moved_by for error in lost} == {won[0].moved_by}
    assert house.store.alias("support", "live") == won[0]


def test_a_race_of_promotion_and_retirement_never_leaves_an_alias_on_a_retired_version(house: House) -> None:
    for digit in "1234":
        version = house.verified(other(digit))
        start = threading.Barrier(2)

        def promote(number: int = version.number, start: threading.Barrier = start) -> None:
            start.wait()
            house.store.point("support", f"a{number}", expected=None, to=number, who="ann", why="")

        def retire(number: int = version.number, start: threading.Barrier = start) -> None:
            start.wait()
            house.store.move("support", number, State.VERIFIED, State.RETIRED, who="bob", why="")

        together([promote, retire])
        pointed = any(alias.number == version.number for alias in house.store.aliases())
        assert pointed is (house.store.get("support", version.number).state is State.VERIFIED)


def test_racing_registrations_of_the_same_bytes_are_one_version(house: House) -> None:
    start, got = threading.Barrier(6), []

    def register() -> None:
        start.wait()
        got.append(house.store.insert(DRAFT))

    together([register] * 6)
    assert {version.id for version in got} == {house.store.get("support", 1).id}
    assert len(house.store.list()) == 1


def test_racing_registrations_of_other_bytes_get_numbers_without_gaps(house: House) -> None:
    start = threading.Barrier(6)

    def register(digit: str) -> None:
        start.wait()
        house.store.insert(other(digit))

    together([partial(register, digit) for digit in "123456"])
    assert [version.number for version in house.store.list()] == [1, 2, 3, 4, 5, 6]


def test_a_database_that_cannot_be_read_is_said_to_be_away(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"no database" * 400)
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    with pytest.raises(Unavailable, match="did not answer") as caught:
        sql.SqlStore(engine)
    assert caught.value.retryable
    engine.dispose()


def together(calls: list[Callable[[], object]]) -> None:
    """Run all at once; what they refuse is part of the race, what they break is not."""
    broken: list[BaseException] = []

    def guarded(call: Callable[[], object]) -> None:
        try:
            call()
        except (Conflict, IllegalMove):
            return
        except AdapterError as error:
            broken.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
