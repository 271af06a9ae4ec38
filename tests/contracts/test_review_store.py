"""What every store of reviews promises: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from monitoring.database import connect
from monitoring.review import sql
from monitoring.review.errors import AlreadyAnswered, ClaimLost, ReviewError, ReviewUnavailable, TaskNotFound
from monitoring.review.store import MemoryReviews, ReviewStore
from monitoring.review.values import Answer, By, Claim, Kind, Reason, Task

NOW = 1_800_000_000.0
CLAIM_S = 900.0


def task(number: int, *records: str, tenant: str = "acme", overlap: int = 1) -> Task:
    return Task(
        id=f"01900000-0000-7000-8000-{number:012d}",
        tenant=tenant,
        kind=Kind.COMPARE if len(records) == 2 else Kind.LABEL,
        records=records or (f"r{number}",),
        completions=tuple(f"chatcmpl-{each}" for each in records) or (f"chatcmpl-r{number}",),
        reason=Reason(by=By.NOVELTY, why="süß – 🙂", score=0.25),
        overlap=overlap,
        picked_at=NOW,
        picked_by="acme/ann",
    )


ONE, TWO, PAIR = task(1), task(2), task(3, "ra", "rb")


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReviewStore]:
    if request.param == "memory":
        yield MemoryReviews()
        return
    url = f"sqlite:///{tmp_path}/control.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    engine = connect(url)
    made = sql.SqlReviews(engine)
    with engine.begin() as connection:
        connection.execute(sa.delete(sql.TASKS))
    yield made
    engine.dispose()


def claim(store: ReviewStore, who: str, *, at: float = NOW, kind: Kind | None = None, tenant: str = "acme") -> str:
    """The number of the task that `who` gets, or nothing."""
    found = store.claim(tenant, who, kind=kind, now=at, until=at + CLAIM_S, coin=lambda _, by: by == "bob")
    return str(int(found.task.id[-12:])) if found else ""


def answer(of: Task, who: str, at: float = NOW + 1, *, skipped: bool = False) -> Answer:
    if skipped:
        return Answer(task=of.id, reviewer=who, at=at, skipped=True)
    return Answer(task=of.id, reviewer=who, at=at, thumbs=-1, scalars={"tone": 0.5, "süß": -2.0})


def test_tasks_are_read_back_whole_and_a_subject_has_one(store: ReviewStore) -> None:
    assert store.add([ONE, TWO, PAIR]) == (ONE, TWO, PAIR)
    turned = task(9, "rb", "ra")
    assert store.add([replace(ONE, id=task(8).id), turned, task(4)]) == (task(4),)
    assert store.get("acme", PAIR.id) == PAIR
    assert store.list("acme") == (ONE, TWO, PAIR, task(4))
    assert store.list("acme", after=ONE.id, limit=2) == (TWO, PAIR)
    assert store.list("acme", kind=Kind.COMPARE) == (PAIR,)
    assert store.list("acme", state="done") == ()
    assert store.add([task(5), task(6, "r5")]) == (task(5),)
    more = [ONE, task(10), task(11), task(12)]
    assert store.add(more, most=2, keep=False) == (task(10), task(11))
    assert store.add(more, most=2) == (task(10), task(11))
    assert store.add(more, most=2) == (task(12),)
    assert store.add([]) == ()


def test_another_tenant_s_tasks_are_not_there(store: ReviewStore) -> None:
    store.add([ONE])
    assert store.list("other", state="all") == ()
    assert claim(store, "ann", tenant="other") == ""
    for attempt in (
        lambda: store.get("other", ONE.id),
        lambda: store.held("other", ONE.id, "ann", now=NOW),
        lambda: store.answer("other", answer(ONE, "ann"), asked=False),
    ):
        with pytest.raises(TaskNotFound):
            attempt()
    store.drop("other", ONE.id)
    assert store.get("acme", ONE.id) == ONE
    assert store.add([task(7, "r1", tenant="other")])  # the same record's number, of somebody else


@pytest.mark.parametrize("odd", ["", "absent", "a\0b", "\ud800", "é", "x" * 10_000])
def test_a_task_that_is_not_there_is_not_found(store: ReviewStore, odd: str) -> None:
    with pytest.raises(TaskNotFound):
        store.get("acme", odd)
    with pytest.raises(TaskNotFound):
        store.held("acme", odd, "ann", now=NOW)
    store.drop("acme", odd)


def test_the_oldest_is_given_first_and_to_one_person_at_a_time(store: ReviewStore) -> None:
    store.add([TWO, ONE, PAIR])
    assert [claim(store, who) for who in ("ann", "bob", "ann", "eve")] == ["1", "2", "3", ""]
    assert claim(store, "eve", kind=Kind.COMPARE) == ""


def test_a_kind_may_be_asked_for(store: ReviewStore) -> None:
    store.add([ONE, PAIR])
    assert claim(store, "ann", kind=Kind.COMPARE) == "3"
    assert claim(store, "bob", kind=Kind.LABEL) == "1"


def test_a_claim_says_until_when_and_on_which_side_and_keeps_both(store: ReviewStore) -> None:
    store.add([replace(PAIR, overlap=2)])
    for who, flipped in (("ann", False), ("bob", True)):
        claim(store, who)
        wanted = Claim(task=replace(PAIR, overlap=2), reviewer=who, until=NOW + CLAIM_S, flipped=flipped)
        assert store.held("acme", PAIR.id, who, now=NOW) == wanted


def test_a_claim_that_ran_out_goes_to_the_next_or_back_to_the_same(store: ReviewStore) -> None:
    store.add([ONE])
    assert claim(store, "ann") == "1"
    assert claim(store, "bob", at=NOW + CLAIM_S - 1) == ""
    assert claim(store, "bob", at=NOW + CLAIM_S) == "1"
    assert claim(store, "ann", at=NOW + CLAIM_S + 1) == ""
    assert claim(store, "ann", at=NOW + 2 * CLAIM_S) == "1"


def test_who_answers_late_is_heard_while_nobody_else_has_the_task(store: ReviewStore) -> None:
    store.add([ONE, TWO])
    claim(store, "ann")
    assert store.answer("acme", answer(ONE, "ann", NOW + CLAIM_S + 5)).done
    claim(store, "ann")
    claim(store, "bob", at=NOW + CLAIM_S)
    with pytest.raises(ClaimLost, match="'ann' does not hold"):
        store.answer("acme", answer(TWO, "ann", NOW + CLAIM_S + 5))
    assert store.answers("acme", tasks=[TWO.id]) == ()


def test_who_never_had_a_task_cannot_answer_it_unless_nobody_was_asked(store: ReviewStore) -> None:
    store.add([ONE])
    with pytest.raises(ClaimLost):
        store.held("acme", ONE.id, "ann", now=NOW)
    with pytest.raises(ClaimLost):
        store.answer("acme", answer(ONE, "ann"))
    assert store.held("acme", ONE.id, "ann", now=NOW, asked=False).task == ONE
    assert store.answer("acme", answer(ONE, "ann"), asked=False).answered == 1
    assert store.answer("acme", answer(ONE, "bob"), asked=False).answered == 2


def test_nobody_gets_a_task_twice_whether_it_was_answered_or_passed_over(store: ReviewStore) -> None:
    store.add([replace(ONE, overlap=3)])
    claim(store, "ann")
    claim(store, "bob")
    store.answer("acme", answer(ONE, "ann"))
    assert store.answer("acme", answer(ONE, "bob", skipped=True)).answered == 1
    for who in ("ann", "bob"):
        assert claim(store, who, at=NOW + 9 * CLAIM_S) == ""
        for asked in (True, False):
            with pytest.raises(AlreadyAnswered, match=who):
                store.held("acme", ONE.id, who, now=NOW, asked=asked)
            with pytest.raises(AlreadyAnswered):
                store.answer("acme", answer(ONE, who), asked=asked)
    assert store.answers("acme") == (answer(ONE, "ann"),)


def test_a_task_is_done_when_as_many_have_answered_as_it_needs(store: ReviewStore) -> None:
    store.add([replace(ONE, overlap=2), TWO])
    assert [claim(store, who) for who in ("ann", "bob", "eve", "joe")] == ["1", "1", "2", ""]
    assert not store.answer("acme", answer(ONE, "ann")).done
    assert claim(store, "joe") == ""
    store.answer("acme", answer(ONE, "bob", skipped=True))
    assert claim(store, "joe") == "1"  # the seat that was passed over
    assert store.answer("acme", answer(ONE, "joe", NOW + 2)).done
    assert [each.id for each in store.list("acme", state="done")] == [ONE.id]
    assert [each.id for each in store.list("acme")] == [TWO.id]
    assert store.answers("acme", tasks=[ONE.id]) == (answer(ONE, "ann"), answer(ONE, "joe", NOW + 2))
    assert store.answers("acme", tasks=[]) == ()


def test_a_choice_is_kept_with_the_side_it_was_seen_on(store: ReviewStore) -> None:
    store.add([PAIR])
    claim(store, "bob")
    said = Answer(task=PAIR.id, reviewer="bob", at=NOW + 1, choice="second", flipped=True)
    store.answer("acme", said)
    assert store.answers("acme") == (said,)


def test_a_task_that_is_dropped_takes_everything_with_it(store: ReviewStore) -> None:
    store.add([ONE])
    claim(store, "ann")
    store.answer("acme", answer(ONE, "ann"))
    store.drop("acme", ONE.id)
    store.drop("acme", ONE.id)
    assert store.list("acme", state="all") == ()
    assert store.answers("acme") == ()
    assert store.add([ONE]) == (ONE,)
    assert claim(store, "ann") == "1"


@pytest.mark.slow
def test_many_who_ask_at_once_share_the_tasks_and_no_seat_is_given_twice(store: ReviewStore) -> None:
    tasks = [task(n, overlap=2) for n in range(1, 11)]
    store.add(tasks)

    def take_all(who: str) -> list[str]:
        found: list[str] = []
        while number := claim(store, who):
            found.append(number)
        return found

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take_all, ("ann", "bob", "eve", "joe")))
    assert sorted(number for mine in taken for number in mine) == sorted([str(n) for n in range(1, 11)] * 2)
    assert all(len(mine) == len(set(mine)) for mine in taken)


def test_a_database_that_is_away_is_said_so(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    store = sql.SqlReviews(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE review_tasks RENAME TO elsewhere"))
    with pytest.raises(ReviewUnavailable) as caught:
        store.list("acme")
    assert isinstance(caught.value, ReviewError)
    assert caught.value.retryable
