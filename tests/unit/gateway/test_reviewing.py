"""Reviews joined with the records: picked, shown blind, answered as feedback, taken out and in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import reviewing, reviewing_picks
from gateway.api.control import review_documents as documents
from gateway.reviewing import Desk
from gateway.reviewing_picks import Picked, Wish
from monitoring.records.errors import NotFound, SpoolFull
from monitoring.records.events import Event, Feedback
from monitoring.records.ingest import Ingester
from monitoring.records.spool import Spool
from monitoring.records.store import MemoryRecords
from monitoring.review.errors import BadAnswer, BadImport, BadPick, ClaimLost
from monitoring.review.label_studio import exported
from monitoring.review.picking import Query
from monitoring.review.store import MemoryReviews
from monitoring.review.values import By, Kind, Said
from tests.unit.monitoring.review.desks import NOW, record, word


class Full(Spool):
    """A spool whose disk is full."""

    def append(self, lines: Any, *, sync: bool = False) -> None:
        raise SpoolFull(OSError(28, "no space"), written=0, lines=len(lines))


def desk(folder: Path, *events: Event) -> Desk:
    records = MemoryRecords()
    records.ingest("a", 1, events)
    return Desk(store=MemoryReviews(), records=records, spool=Spool(folder / "spool", "t"), secret=b"s")


def said(of: Desk, folder: Path) -> list[Feedback]:
    """What has become feedback, after the ingester moved it."""
    assert isinstance(of.records, MemoryRecords)
    of.spool.close()
    Ingester(folder / "spool", of.records).step()
    return of.records.feedback(tenant="acme", limit=1000)


def pick(of: Desk, by: By = By.QUERY, tenant: str = "acme", **wish: Any) -> Picked:
    dry_run = wish.pop("dry_run", False)
    wished = Wish(**{"by": by, "since": 0.0, "until": NOW + 999, **wish})
    return reviewing_picks.pick(of, tenant, wished, who="acme/ann", now=NOW, dry_run=dry_run)


def take(of: Desk, who: str, at: float = NOW, kind: Kind | None = None) -> reviewing.Shown:
    found = reviewing.following(of, "acme", who, now=at, kind=kind)
    assert found is not None
    return found


def test_a_task_is_made_once_and_only_of_what_can_be_shown_to_this_tenant(tmp_path: Path) -> None:
    hidden = record(3, request=None, response=None, captured="metadata")
    ours = desk(tmp_path, record(1), record(2), hidden, record(4, tenant="other"), record(5, model="sales"))
    dry = pick(ours, query=Query(model="support"), dry_run=True)
    assert ours.store.list("acme") == ()
    found = pick(ours, query=Query(model="support"))
    assert [task.completions for task in found.tasks] == [task.completions for task in dry.tasks]
    assert [task.completions for task in found.tasks] == [("chatcmpl-2",), ("chatcmpl-1",)]
    assert (found.looked_at, found.matching, found.hidden, found.found) == (4, 3, 1, 2)
    again = pick(ours)
    assert ([task.completions for task in again.tasks], again.found) == ([("chatcmpl-5",)], 3)


def test_the_next_pick_takes_the_next_best(tmp_path: Path) -> None:
    ours = desk(tmp_path, *(record(n) for n in range(1, 6)))
    taken = [pick(ours, n=2).tasks for _ in range(4)]
    assert [[task.completions[0][-1] for task in tasks] for tasks in taken] == [["5", "4"], ["3", "2"], ["1"], []]


def test_picks_by_what_was_said_use_each_rater_s_last_word(tmp_path: Path) -> None:
    changed = (word(1, 1, value=1.0, rater="u"), word(2, 1, value=-1.0, rater="u"), word(3, 1, value=-1.0))
    split = (word(4, 2, value=1.0), word(5, 2, value=-1.0))
    ours = desk(tmp_path, record(1), record(2), *changed, *split)
    (task,) = pick(ours, By.DISAGREEMENT).tasks
    assert task.completions == ("chatcmpl-2",)
    assert task.reason.why == "1 thumbs up, 1 down"


def test_answers_may_be_named_but_not_another_tenant_s(tmp_path: Path) -> None:
    ours = desk(tmp_path, record(1), record(2), record(3, tenant="other"))
    (task,) = pick(ours, query=Query(completions=("chatcmpl-1",))).tasks
    assert task.completions == ("chatcmpl-1",)
    for foreign in ("chatcmpl-3", "chatcmpl-99"):
        with pytest.raises(NotFound):
            pick(ours, query=Query(completions=(foreign,)))


@pytest.mark.parametrize("wish", [{"n": 0}, {"n": 1001}, {"overlap": 0}, {"since": NOW, "until": NOW}])
def test_a_wish_for_nothing_is_refused(tmp_path: Path, wish: dict[str, Any]) -> None:
    with pytest.raises(BadPick):
        pick(desk(tmp_path, record(1)), **wish)


def test_only_the_span_is_looked_at(tmp_path: Path) -> None:
    ours = desk(tmp_path, *(record(n) for n in range(1, 300)))
    assert pick(ours, since=NOW + 0.1, until=NOW + 0.2, dry_run=True).looked_at == 100
    assert pick(ours, dry_run=True).looked_at == 299


def test_what_a_reviewer_says_is_feedback_at_once_and_a_row_without_words(tmp_path: Path) -> None:
    ours = desk(tmp_path, record(1, "why?", "because"))
    pick(ours)
    found = take(ours, "ann@example.com")
    assert documents.claim(found)["answer"] == "because"
    assert found.claim.until == NOW + 900
    said_ = Said(thumbs=-1, comment="wrong", correction="right")
    done = reviewing.answer(ours, "acme", found.claim.task.id, "ann@example.com", said_, None, now=NOW + 1, key_id="k")
    assert done.done
    words = said(ours, tmp_path)
    assert [(each.kind, each.value, each.text) for each in words] == [
        ("thumbs", -1.0, None),
        ("comment", None, "wrong"),
        ("correction", None, "right"),
    ]
    assert all(each.rater.startswith("hmac:") for each in words)
    (row,) = ours.store.answers("acme")
    assert row.reviewer == words[0].rater
    assert reviewing.following(ours, "acme", "bob", now=NOW) is None


def test_a_pair_is_shown_blind_and_the_choice_finds_the_right_answer_on_either_side(tmp_path: Path) -> None:
    ours = desk(
        tmp_path, record(1, "why?", "old words"), record(2, "why?", "new words", adapter="support:2", arm="new")
    )
    (task,) = pick(ours, query=Query(arm="new"), compare=True, overlap=20).tasks  # with one of another arm
    sides = set()
    for n in range(20):
        shown = documents.claim(take(ours, f"r{n}"))
        assert "support" not in json.dumps(shown)
        assert "chatcmpl" not in json.dumps(shown)
        sides.add(shown["left"])
        seen: Any = "left" if shown["left"] == "new words" else "right"
        reviewing.answer(ours, "acme", task.id, f"r{n}", Said(), seen, now=NOW + n)
    assert sides == {"old words", "new words"}
    assert {(each.kind, each.target, each.other) for each in said(ours, tmp_path)} == {
        ("preference", "chatcmpl-2", "chatcmpl-1")
    }
    figures = documents.agreement(ours.store.answers("acme"))
    assert figures["choices"]["tasks"] == 1
    assert 0 < figures["left_share"]["value"] < 1


def test_nothing_counts_as_said_that_is_not_durable(tmp_path: Path) -> None:
    ours = replace(desk(tmp_path, record(1)), spool=Full(tmp_path / "full", "t"))
    pick(ours)
    task = take(ours, "ann").claim.task.id
    with pytest.raises(SpoolFull):
        reviewing.answer(ours, "acme", task, "ann", Said(thumbs=1), None, now=NOW)
    assert ours.store.answers("acme") == ()
    assert ours.store.held("acme", task, "ann", now=NOW).until > NOW


def test_what_is_refused_leaves_no_feedback(tmp_path: Path) -> None:
    ours = desk(tmp_path, record(1))
    pick(ours)
    task = take(ours, "ann").claim.task.id
    with pytest.raises(BadAnswer):
        reviewing.answer(ours, "acme", task, "ann", Said(), None, now=NOW)
    with pytest.raises(ClaimLost):
        reviewing.answer(ours, "acme", task, "bob", Said(thumbs=1), None, now=NOW)
    assert said(ours, tmp_path) == []


def test_passing_over_gives_the_task_to_others_only(tmp_path: Path) -> None:
    ours = desk(tmp_path, record(1))
    pick(ours)
    task = take(ours, "ann").claim.task.id
    reviewing.skip(ours, "acme", task, "ann", now=NOW)
    assert reviewing.following(ours, "acme", "ann", now=NOW) is None
    assert take(ours, "bob").claim.task.id == task


def test_a_task_whose_record_is_gone_goes_too(tmp_path: Path) -> None:
    ours = desk(tmp_path, record(1), record(2))
    pick(ours)
    left = replace(ours, records=MemoryRecords())
    left.records.ingest("a", 1, [record(1)])
    assert take(left, "ann").claim.task.completions == ("chatcmpl-1",)
    assert [task.completions for task in ours.store.list("acme", state="all")] == [("chatcmpl-1",)]


def test_a_file_goes_out_with_its_words_and_comes_back_into_another_house(tmp_path: Path) -> None:
    records = (record(1, "a?", "b"), record(2, "why?", "old"), record(3, "why?", "new", arm="new"))
    ours = desk(tmp_path / "ours", *records)
    pick(ours, query=Query(completions=("chatcmpl-1",)))
    pick(ours, query=Query(model="support"), compare=True)
    words = Said(thumbs=1, scalars={"tone": 2.0}, comment="good", correction="better")
    reviewing.answer(ours, "acme", take(ours, "ann", kind=Kind.LABEL).claim.task.id, "ann", words, None, now=NOW)
    pair = take(ours, "bob", kind=Kind.COMPARE).claim.task.id
    reviewing.answer(ours, "acme", pair, "bob", Said(), "left", now=NOW + 1)
    first = said(ours, tmp_path / "ours")
    items = [
        item
        for kind in (Kind.LABEL, Kind.COMPARE)
        for item in reviewing.exports(ours, "acme", state="all", kind=kind, after="", limit=9)
    ]
    file = json.dumps(exported(items)).encode()

    theirs = desk(tmp_path / "theirs", *records)
    theirs.store.add([replace(task, answered=0) for task in ours.store.list("acme", state="all")])
    came = reviewing.bring(theirs, "acme", file, now=NOW + 2)
    assert (came.answers, came.known, came.tasks) == (2, 0, 2)
    again = reviewing.bring(theirs, "acme", file, now=NOW + 3)
    assert (again.answers, again.known) == (0, 2)
    second = said(theirs, tmp_path / "theirs")
    assert {(w.seat, w.value, w.text) for w in second} == {(w.seat, w.value, w.text) for w in first}
    assert [(a.thumbs, a.choice) for a in theirs.store.answers("acme")] == [
        (a.thumbs, a.choice) for a in ours.store.answers("acme")
    ]


def test_pages_of_a_file_go_on_past_tasks_whose_records_are_gone(tmp_path: Path) -> None:
    ours = desk(tmp_path, *(record(n) for n in range(1, 6)))
    pick(ours)
    left = replace(ours, records=MemoryRecords())
    left.records.ingest("a", 1, [record(1)])
    page = {"state": "all", "kind": Kind.LABEL, "limit": 2}
    (item,) = reviewing.exports(left, "acme", after="", **page)  # type: ignore[arg-type]
    assert item.task.completions == ("chatcmpl-1",)
    assert reviewing.exports(left, "acme", after=item.task.id, **page) == []  # type: ignore[arg-type]


def test_a_file_with_one_wrong_task_changes_nothing(tmp_path: Path) -> None:
    ours = desk(tmp_path, record(1))
    (task,) = pick(ours).tasks
    thumb = {"from_name": "thumbs", "type": "choices", "value": {"choices": ["up"]}}
    choice = {"from_name": "choice", "type": "choices", "value": {"choices": ["left"]}}
    file = [
        {"data": {"graftline_task": named}, "annotations": [{"completed_by": 1, "result": [result]}]}
        for named, result in ((task.id, thumb), ("elsewhere", thumb), (task.id, choice))
    ]
    with pytest.raises(BadImport) as caught:
        reviewing.bring(ours, "acme", json.dumps(file).encode(), now=NOW)
    assert [reason.split(":")[0] for reason in caught.value.reasons] == ["task 1, annotation 0", "task 2, annotation 0"]
    assert ours.store.answers("acme") == ()
    assert said(ours, tmp_path) == []
    assert reviewing.bring(ours, "acme", json.dumps(file[:1]).encode(), now=NOW).answers == 1


def test_agreement_is_shown_with_its_numbers_and_null_where_there_is_none(tmp_path: Path) -> None:
    ours = desk(tmp_path, *(record(n) for n in range(1, 5)))
    pick(ours, overlap=2)
    for who, thumbs in (("ann", (1, 1, -1, -1)), ("bob", (1, 1, -1, 1))):
        for value in thumbs:
            found = take(ours, who).claim.task.id
            said_ = Said(thumbs=value, scalars={"tone": float(value)})  # type: ignore[arg-type]
            reviewing.answer(ours, "acme", found, who, said_, None, now=NOW)
    figures = documents.agreement(ours.store.answers("acme"))
    assert figures["thumbs"]["cohen_kappa"] == [
        {"reviewers": ["ann", "bob"], "value": 0.5, "observed": 0.75, "tasks": 4, "ratings": 8}
    ]
    assert figures["thumbs"]["fleiss_kappa"]["reviewers"] == 2
    assert figures["thumbs"]["krippendorff_alpha"]["tasks"] == 4
    assert figures["scalars"]["tone"]["krippendorff_alpha"]["ratings"] == 8
    assert figures["choices"]["krippendorff_alpha"]["value"] is None
    assert figures["left_share"] == {"value": None, "choices": 0}
    json.dumps(figures, allow_nan=False)
