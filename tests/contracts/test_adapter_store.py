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
from adapters.carried import Carried
from adapters.errors import AdapterError, Conflict, IllegalMove, NotFound, Reason, Unavailable
from adapters.evidence import KEPT_MAX
from adapters.lifecycle import CURRENT, State
from adapters.store import Draft, Evidence, MemoryStore, Store, Version
from adapters.tables import ALIASES, AUDIT, VERSIONS
from adapters.tables import EVIDENCE as EVIDENCES
from monitoring.database import connect, migrate, reading, revision

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
        for table in (EVIDENCES, AUDIT, ALIASES, VERSIONS):
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


EVIDENCE = Evidence(
    name="support",
    number=1,
    kind="parity",
    subject="engine-0",
    at=NOW,
    who="fleet",
    passed=False,
    body={"mean": 0.5, "most": "nan", "tokens": [1, 2]},
)


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
    house.store.move("support", 1, State.UPLOADED, State.REJECTED, who="ann", why="")
    house.store.move("sales", 1, State.UPLOADED, State.CHECKED, who="ann", why="")
    assert [(v.name, v.number) for v in house.store.list(states=CURRENT)] == [("sales", 1), ("support", 2)]
    assert [v.number for v in house.store.list("support", states={State.REJECTED, State.CHECKED})] == [1]
    assert house.store.list(states={State.RETIRED}) == house.store.list(states=()) == ()
    assert len(house.store.list()) == 3
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


def test_where_a_version_came_from_and_what_it_carries_is_kept(house: House) -> None:
    draft = replace(
        DRAFT,
        origin="training",
        source="hub:org/x@main",
        base_name="Tidewell",
        labels=("other_quantization", "weak_effect"),
        carried=Carried(system="Be “brief”.", sampling={"temperature": 0.5, "seed": 7}, stop=("\n\n", "END")),
        template_digest=DIGEST,
    )
    version = house.store.insert(draft)
    assert {name: getattr(version, name) for name in Draft.__slots__} == {
        name: getattr(draft, name) for name in Draft.__slots__
    }
    assert house.store.get("support", 1) == version == house.store.list()[0] == house.store.by_digest(DIGEST)[0]
    plain = house.store.insert(other("c"))
    assert (plain.origin, plain.source, plain.labels, plain.carried) == ("upload", "", (), Carried())


def test_a_move_adds_labels_and_keeps_evidence_in_the_same_step(house: House) -> None:
    house.store.insert(replace(DRAFT, labels=("a",)))
    moved = house.store.move(
        "support", 1, State.UPLOADED, State.CHECKED, who="ann", why="", labels=("b", "a"), evidence=[EVIDENCE]
    )
    assert moved.labels == ("a", "b")
    assert house.store.get("support", 1) == moved
    with pytest.raises(Conflict):
        house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why="", evidence=[EVIDENCE])
    assert house.store.evidence("support", 1) == (EVIDENCE,)


@pytest.mark.parametrize("steps", [1, 2])
def test_admission_verifies_and_takes_the_first_version_live(steps: int, house: House) -> None:
    house.store.insert(DRAFT)
    for expected, to in STEPS[:steps]:
        house.store.move("support", 1, expected, to, who="fleet", why="")
    before = house.revision()
    admitted = house.store.admit("support", 1, who="fleet", why="on 2 replicas")
    assert (admitted.state, house.revision()) == (State.VERIFIED, before + 1)
    assert [(a.alias, a.number, a.moved_by) for a in house.store.aliases()] == [("live", 1, "fleet")]
    assert [row.action for row in house.store.audit(limit=3)] == ["pointed", "verified", "probed"]


def test_admission_makes_later_versions_the_candidate_but_never_an_older_one(house: House) -> None:
    for digit in "1234":
        house.store.insert(other(digit))
        house.store.move("support", int(digit), State.UPLOADED, State.CHECKED, who="ann", why="")
    for number in (1, 3, 2, 4):
        house.store.admit("support", number, who="fleet", why="")
        assert [(a.alias, a.number) for a in house.store.aliases()] == {
            1: [("live", 1)],
            3: [("candidate", 3), ("live", 1)],
            2: [("candidate", 3), ("live", 1)],
            4: [("candidate", 4), ("live", 1)],
        }[number]
    assert house.store.alias("support", "candidate").previous == 3


def test_admission_with_a_closed_gate_makes_candidates_only(house: House) -> None:
    house.store.insert(DRAFT)
    house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why="")
    house.store.admit("support", 1, who="fleet", why="", live_allowed=False)
    assert [(a.alias, a.number) for a in house.store.aliases()] == [("candidate", 1)]


def test_admitting_twice_changes_nothing_the_second_time(house: House) -> None:
    house.store.insert(DRAFT)
    house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why="")
    first = house.store.admit("support", 1, who="fleet", why="")
    house.store.pin("support", "live", True, who="ann", why="")
    before = house.revision()
    assert house.store.admit("support", 1, who="fleet", why="again") == first
    assert (house.revision(), house.store.alias("support", "live").pinned) == (before, True)


@pytest.mark.parametrize("state", [State.UPLOADED, State.RETIRED, State.REJECTED, State.DELETED])
def test_nothing_is_admitted_from_a_state_that_does_not_lead_there(state: State, house: House) -> None:
    house.store.insert(DRAFT)
    way = {
        State.UPLOADED: (),
        State.RETIRED: ((State.UPLOADED, State.RETIRED),),
        State.REJECTED: ((State.UPLOADED, State.REJECTED),),
        State.DELETED: ((State.UPLOADED, State.REJECTED), (State.REJECTED, State.DELETED)),
    }
    for expected, to in way[state]:
        house.store.move("support", 1, expected, to, who="bob", why="")
    who = "ann" if state is State.UPLOADED else "bob"
    with pytest.raises(IllegalMove, match=f"support:1 is {state}: {who} made it so at 2027"):
        house.store.admit("support", 1, who="fleet", why="")
    assert (house.store.get("support", 1).state, house.store.aliases()) == (state, ())


def test_what_is_withdrawn_gives_its_aliases_back_to_what_they_served_before(house: House) -> None:
    for digit in "123":
        house.verified(other(digit))
    for number in (1, 2, 3):
        house.store.point("support", "live", expected=number - 1 or None, to=number, who="ann", why="")
    house.store.point("support", "new", expected=None, to=3, who="ann", why="")
    house.store.pin("support", "live", True, who="ann", why="")
    before = house.revision()
    gone = house.store.withdraw("support", 3, who="tripwire", why="NaN", reasons=[REASON])
    assert (gone.state, gone.reasons, house.revision()) == (State.REJECTED, (REASON,), before + 1)
    [live] = house.store.aliases()
    assert (live.alias, live.number, live.previous, live.moved_by, live.why) == ("live", 2, None, "tripwire", "NaN")
    assert live.pinned
    story = [(row.action, row.subject, row.before, row.after) for row in house.store.audit(limit=3)]
    assert sorted(story) == [
        ("pointed", "support@live", "3", "2"),
        ("rejected", "support:3", "verified", "rejected"),
        ("taken_down", "support@new", "3", ""),
    ]
    house.store.withdraw("support", 2, who="tripwire", why="NaN", reasons=[REASON])
    assert house.store.alias("support", "live").number == 1
    house.store.withdraw("support", 1, who="tripwire", why="NaN", reasons=[REASON])
    assert house.store.aliases() == ()


def test_an_alias_never_falls_back_to_what_does_not_serve(house: House) -> None:
    for digit in "12":
        house.verified(other(digit))
    house.store.point("support", "live", expected=None, to=1, who="ann", why="")
    house.store.point("support", "live", expected=1, to=2, who="ann", why="")
    house.store.move("support", 1, State.VERIFIED, State.RETIRED, who="ann", why="")
    house.store.withdraw("support", 2, who="tripwire", why="", reasons=[REASON])
    assert house.store.aliases() == ()


def test_withdrawing_twice_changes_nothing_and_what_ended_otherwise_stays(house: House) -> None:
    first = house.verified()
    rejected = house.store.withdraw("support", 1, who="tripwire", why="", reasons=[REASON])
    before = house.revision()
    assert house.store.withdraw("support", 1, who="ann", why="", reasons=[]) == rejected
    assert house.revision() == before
    assert rejected == replace(first, state=State.REJECTED, reasons=(REASON,))
    house.verified(other("c"))
    house.store.move("support", 2, State.VERIFIED, State.RETIRED, who="bob", why="")
    with pytest.raises(IllegalMove, match="support:2 is retired: bob made it so"):
        house.store.withdraw("support", 2, who="tripwire", why="", reasons=[])


def test_what_was_never_verified_can_be_withdrawn_as_well(house: House) -> None:
    house.store.insert(DRAFT)
    assert house.store.withdraw("support", 1, who="tripwire", why="", reasons=[REASON]).reasons == (REASON,)


def test_pins_are_put_and_taken_once(house: House) -> None:
    house.verified()
    house.store.point("support", "live", expected=None, to=1, who="ann", why="")
    assert not house.store.alias("support", "live").pinned
    pinned = house.store.pin("support", "live", True, who="bob", why="guard")
    assert pinned.pinned
    assert (pinned.moved_by, pinned.number) == ("ann", 1)
    assert house.store.alias("support", "live") == pinned == house.store.aliases()[0]
    before = house.revision()
    assert house.store.pin("support", "live", True, who="ann", why="") == pinned
    assert house.revision() == before
    assert not house.store.pin("support", "live", False, who="bob", why="").pinned
    story = [(row.who, row.action, row.before, row.after, row.why) for row in house.store.audit(limit=2)]
    assert story == [("bob", "unpinned", "pinned", "", ""), ("bob", "pinned", "", "pinned", "guard")]
    with pytest.raises(NotFound):
        house.store.pin("support", "canary", True, who="bob", why="")


def test_evidence_is_kept_in_order_and_moves_no_revision(house: House) -> None:
    house.store.insert(DRAFT)
    before = house.revision()
    probe = replace(EVIDENCE, kind="probe", subject="", passed=True, body={"effect": 2.5})
    for found in (EVIDENCE, probe, replace(EVIDENCE, subject="engine-1")):
        house.store.attest(found)
    assert house.revision() == before
    assert house.store.evidence("support", 1) == (EVIDENCE, probe, replace(EVIDENCE, subject="engine-1"))
    assert house.store.evidence("support", 1, "probe") == (probe,)
    assert house.store.evidence("support", 2) == house.store.evidence("sales", 1) == ()
    with pytest.raises(NotFound, match="support:2"):
        house.store.attest(replace(EVIDENCE, number=2))


def test_evidence_comes_back_as_json_and_says_what_is_no_number(house: House) -> None:
    house.store.insert(DRAFT)
    house.store.attest(replace(EVIDENCE, body={"a": float("nan"), "b": (1, 2.5), "c": {"d": float("-inf")}, "e": None}))
    assert house.store.evidence("support", 1)[0].body == {"a": "nan", "b": [1, 2.5], "c": {"d": "-inf"}, "e": None}


def test_of_much_evidence_the_newest_of_each_kind_and_replica_is_kept(house: House) -> None:
    house.store.insert(DRAFT)
    house.store.attest(replace(EVIDENCE, kind="static"))
    for load in range(KEPT_MAX + 3):
        house.store.attest(replace(EVIDENCE, kind="load", body={"load": load}))
    assert [found.body["load"] for found in house.store.evidence("support", 1, "load")] == list(range(3, KEPT_MAX + 3))
    assert len(house.store.evidence("support", 1)) == KEPT_MAX + 1


def test_an_override_is_kept_with_the_move_it_allowed_and_not_without_it(house: House) -> None:
    house.verified()
    override = replace(EVIDENCE, kind="override", passed=True, body={"why": "the pager is ringing"})
    with pytest.raises(Conflict):
        house.store.point("support", "live", expected=3, to=1, who="ann", why="", override=override)
    assert house.store.evidence("support", 1) == ()
    house.store.point("support", "live", expected=None, to=1, who="ann", why="go", override=override)
    assert house.store.evidence("support", 1) == (override,)
    story = [(row.action, row.subject, row.after, row.why) for row in house.store.audit(limit=2)]
    assert story == [
        ("pointed", "support@live", "1", "go"),
        ("overrode", "support:1", "support@live", override.body["why"]),
    ]


def test_of_a_withdrawal_and_a_promotion_at_once_neither_leaves_an_alias_on_it(house: House) -> None:
    house.verified(other("f"))
    house.store.point("support", "live", expected=None, to=1, who="ann", why="")
    for digit in "1234":
        version = house.verified(other(digit))
        start = threading.Barrier(2)

        def promote(number: int = version.number, start: threading.Barrier = start) -> None:
            start.wait()
            house.store.point("support", "live", expected=1, to=number, who="ann", why="")

        def withdraw(number: int = version.number, start: threading.Barrier = start) -> None:
            start.wait()
            house.store.withdraw("support", number, who="tripwire", why="", reasons=[REASON])

        together([promote, withdraw])
        assert house.store.alias("support", "live").number == 1
        assert house.store.get("support", version.number).state is State.REJECTED


def test_racing_admissions_are_one(house: House) -> None:
    house.store.insert(DRAFT)
    house.store.move("support", 1, State.UPLOADED, State.CHECKED, who="ann", why="")
    start = threading.Barrier(6)

    def admit() -> None:
        start.wait()
        house.store.admit("support", 1, who="fleet", why="")

    together([admit] * 6)
    assert [row.action for row in house.store.audit()] == ["pointed", "verified", "probed", "checked", "registered"]
    assert house.store.alias("support", "live").revision == 1


def test_racing_admissions_of_a_name_leave_one_live_and_the_newest_candidate(house: House) -> None:
    for digit in "123456":
        number = house.store.insert(other(digit)).number
        house.store.move("support", number, State.UPLOADED, State.CHECKED, who="ann", why="")
    start = threading.Barrier(6)

    def admit(number: int) -> None:
        start.wait()
        house.store.admit("support", number, who="fleet", why="")

    together([partial(admit, number) for number in range(1, 7)])
    candidate, live = house.store.aliases()
    assert (candidate.alias, live.alias, live.revision) == ("candidate", "live", 1)
    assert candidate.number == max({1, 2, 3, 4, 5, 6} - {live.number})


def test_of_an_admission_and_a_retirement_at_once_the_state_and_the_alias_agree(house: House) -> None:
    for digit in "1234":
        number = house.store.insert(other(digit, f"s{digit}")).number
        house.store.move(f"s{digit}", number, State.UPLOADED, State.CHECKED, who="ann", why="")
        start = threading.Barrier(2)

        def admit(name: str = f"s{digit}", start: threading.Barrier = start) -> None:
            start.wait()
            house.store.admit(name, 1, who="fleet", why="")

        def retire(name: str = f"s{digit}", start: threading.Barrier = start) -> None:
            start.wait()
            house.store.move(name, 1, State.CHECKED, State.RETIRED, who="ann", why="")

        together([admit, retire])
        state = house.store.get(f"s{digit}", 1).state
        assert bool(house.store.aliases(f"s{digit}")) is (state is State.VERIFIED)
        assert state in (State.VERIFIED, State.RETIRED)


EARLIER = (
    """CREATE TABLE adapter_versions (id VARCHAR(32) NOT NULL PRIMARY KEY, name VARCHAR(63) NOT NULL,
    number INTEGER NOT NULL, digest VARCHAR(71) NOT NULL, state VARCHAR(16) NOT NULL,
    created_at DOUBLE PRECISION NOT NULL, created_by TEXT NOT NULL, base_digest VARCHAR(71) NOT NULL,
    rank INTEGER NOT NULL, alpha DOUBLE PRECISION NOT NULL, bytes BIGINT NOT NULL, coverage TEXT NOT NULL,
    reasons TEXT NOT NULL, note TEXT NOT NULL, UNIQUE (name, number))""",
    """CREATE TABLE adapter_aliases (name VARCHAR(63) NOT NULL, alias VARCHAR(63) NOT NULL, number INTEGER NOT NULL,
    previous INTEGER, revision INTEGER NOT NULL, on_unavailable VARCHAR(16) NOT NULL, moved_by TEXT NOT NULL,
    moved_at DOUBLE PRECISION NOT NULL, why TEXT NOT NULL, PRIMARY KEY (name, alias),
    FOREIGN KEY(name, number) REFERENCES adapter_versions (name, number))""",
    """CREATE TABLE adapter_audit (id INTEGER {identity} PRIMARY KEY, name VARCHAR(63) NOT NULL,
    at DOUBLE PRECISION NOT NULL, who TEXT NOT NULL, action VARCHAR(16) NOT NULL, subject VARCHAR(140) NOT NULL,
    "before" TEXT NOT NULL, "after" TEXT NOT NULL, why TEXT NOT NULL)""",
    """INSERT INTO adapter_versions VALUES ('a', 'support', 1, 'sha256:1', 'verified', 100, 'ann', 'sha256:b', 8, 16,
    5000, '28 of 28', '[]', 'first')""",
    """INSERT INTO adapter_versions VALUES ('b', 'support', 2, 'sha256:2', 'rejected', 200, 'ann', 'sha256:b', 8, 16,
    5000, '28 of 28', '[{{"code": "c", "field": "f", "found": "x", "allowed": "y", "advice": "z"}}]', '')""",
    "INSERT INTO adapter_aliases VALUES ('support', 'live', 1, NULL, 1, 'fail', 'ann', 100, 'go')",
    """INSERT INTO adapter_audit (name, at, who, action, subject, "before", "after", why)
    VALUES ('support', 300, 'fleet', 'rejected', 'support:2', 'checked', 'rejected', '')""",
)


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_an_installation_of_the_earlier_version_opens(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/c.db" if where == "sqlite" else request.getfixturevalue("empty_postgres_url")
    identity = "" if where == "sqlite" else "GENERATED BY DEFAULT AS IDENTITY"
    engine = connect(url)

    def earlier(connection: sa.Connection) -> None:
        for statement in EARLIER:
            connection.exec_driver_sql(statement.format(identity=identity))

    assert migrate(engine, "adapters", (earlier,)) == 1
    for _ in range(2):  # the second process finds it done
        store = sql.SqlStore(engine, clock=lambda: NOW)
    first, second = store.list()
    assert (first.state, first.origin, first.labels, first.carried, first.moved_at) == (
        State.VERIFIED,
        "upload",
        (),
        Carried(),
        100,
    )
    assert (second.state, second.moved_at, second.reasons[0].code) == (State.REJECTED, 300, "c")
    assert [(a.alias, a.number, a.pinned) for a in store.aliases()] == [("live", 1, False)]
    assert store.evidence("support", 1) == ()
    version = store.insert(other("c"))
    store.move("support", version.number, State.UPLOADED, State.CHECKED, who="ann", why="", evidence=[EVIDENCE])
    store.admit("support", version.number, who="fleet", why="")
    assert store.alias("support", "candidate").number == 3
    assert store.pin("support", "live", True, who="ann", why="").pinned
    engine.dispose()


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
