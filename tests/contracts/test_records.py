"""What every store of records promises, on memory, SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitoring.database import connect
from monitoring.records import retention
from monitoring.records.errors import BadRecord, NotFound, StoreAway
from monitoring.records.events import Inference, decode, encode, from_parts
from monitoring.records.sql import SqlRecords
from monitoring.records.store import MemoryRecords, Records
from monitoring.records.taints import Taint

NOVEMBER = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
JANUARY = datetime(2027, 1, 5, tzinfo=UTC).timestamp()

FULL: dict[str, Any] = {
    "request_id": "req-1",
    "key_id": "k1",
    "adapter": "support:7",
    "digest": "sha256:aa",
    "base_digest": "sha256:bb",
    "replica": "local",
    "arm": "treatment",
    "first_byte_ms": 3.25,
    "first_token_ms": 4.5,
    "last_token_ms": 99.0,
    "total_ms": 100.125,
    "error": "engine_broke",
    "finish": "stop",
    "incomplete": True,
    "stream": True,
    "attempts": 2,
    "retry_count": 1,
    "prompt_tokens": 12,
    "completion_tokens": 5_000_000_000,
    "cached_tokens": 3,
    "user": "u-1",
    "conversation": "c-1",
    "metadata": {"ticket": "7", "ünïcode": "→"},
    "captured": "full",
    "stored": True,
    "request": '{"messages":[{"content":"[EMAIL] \\u0000"}]}',
    "response": '{"choices":[]}',
}


def record(made_at: float, noise: int = 0, **values: Any) -> Inference:
    given: dict[str, Any] = {
        "id": from_parts(int(made_at * 1000), 0, noise),
        "completion_id": f"chatcmpl-{noise}",
        "tenant": "acme",
        "endpoint": "chat",
        "model": "support",
        "started_at": made_at,
        "status": 200,
    }
    return Inference(**(given | values))


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    if request.param == "memory":
        yield MemoryRecords()
        return
    where = tmp_path / "records" if request.param == "sqlite" else request.getfixturevalue("empty_postgres_url")
    store = SqlRecords(where, clock=lambda: NOVEMBER)
    yield store
    store.close()


def test_a_record_comes_back_as_it_was(records: Records) -> None:
    whole = record(NOVEMBER, 1, **FULL)
    bare = record(NOVEMBER, 2)
    records.ingest("w.spool", 10, [whole, bare])
    assert records.get(whole.id) == whole
    assert records.get(bare.id) == bare


def test_a_record_that_came_through_a_spool_line_can_be_stored_whatever_the_client_sent(records: Records) -> None:
    odd = decode(encode(record(NOVEMBER, 1, model="a\0b", user="\0", metadata={"\0": "\ud7ff\0"}, request='"\0"')))
    records.ingest("w.spool", 10, [odd])
    assert records.get(odd.id).model == "a\ufffdb"
    assert records.get(odd.id) == odd


def test_rows_and_offset_arrive_together_and_a_repeat_changes_nothing(records: Records) -> None:
    first = record(NOVEMBER, 1)
    records.ingest("w.spool", 10, [first])
    records.ingest("w.spool", 10, [first])
    records.ingest("w.spool", 25, [first, record(NOVEMBER, 2)])
    assert records.count() == 2
    assert records.offset("w.spool") == 25


def test_a_record_is_stored_once_even_when_its_id_comes_again_with_other_words(records: Records) -> None:
    records.ingest("w.spool", 10, [record(NOVEMBER, 1, model="first")])
    records.ingest("v.spool", 10, [record(NOVEMBER, 1, model="second"), record(NOVEMBER, 1, model="third")])
    assert [each.model for each in records.query()] == ["first"]


def test_an_offset_never_moves_back(records: Records) -> None:
    records.ingest("w.spool", 25, [])
    records.ingest("w.spool", 10, [])
    assert records.offset("w.spool") == 25


def test_a_file_never_seen_or_forgotten_is_at_its_beginning(records: Records) -> None:
    assert records.offset("w.spool") == 0
    records.ingest("w.spool", 25, [record(NOVEMBER)])
    records.forget("w.spool")
    records.forget("w.spool")
    assert records.offset("w.spool") == 0
    assert records.count() == 1


def test_a_batch_across_the_end_of_a_month_is_stored_whole(records: Records) -> None:
    pair = [record(DECEMBER, 2), record(DECEMBER - 0.001, 1)]
    records.ingest("w.spool", 40, pair)
    assert [each.id for each in records.query()] == sorted(each.id for each in pair)
    assert records.offset("w.spool") == 40


def test_what_is_not_there_is_not_found(records: Records) -> None:
    records.ingest("w.spool", 10, [record(NOVEMBER, 1)])
    for unknown in (record(NOVEMBER, 9).id, record(JANUARY).id, "not an id", ""):
        with pytest.raises(NotFound, match="No record"):
            records.get(unknown)
    with pytest.raises(NotFound):
        records.by_completion("chatcmpl-9", "acme")


def test_an_answer_is_found_by_its_own_id_within_its_tenant_only_and_the_newest_wins(records: Records) -> None:
    old, new = record(NOVEMBER, 1, completion_id="cmpl"), record(JANUARY, 2, completion_id="cmpl")
    records.ingest("w.spool", 10, [new, old])
    assert records.by_completion("cmpl", "acme") == new
    with pytest.raises(NotFound):
        records.by_completion("cmpl", "other")


def test_pages_follow_each_other_without_gap_or_repeat(records: Records) -> None:
    made = [record(at, noise) for at in (NOVEMBER, DECEMBER, JANUARY) for noise in range(5)]
    records.ingest("w.spool", 10, made)
    seen: list[str] = []
    while page := records.query(after=seen[-1] if seen else None, limit=4):
        assert len(page) <= 4
        seen += [each.id for each in page]
    assert seen == sorted(each.id for each in made)


def test_queries_and_counts_select_alike(records: Records) -> None:
    made = [
        record(NOVEMBER, 1),
        record(NOVEMBER + 1, 2, tenant="other"),
        record(NOVEMBER + 2, 3, digest="sha256:aa"),
        record(JANUARY, 4, digest="sha256:aa"),
    ]
    records.ingest("w.spool", 10, made)
    selections: list[tuple[dict[str, Any], set[int]]] = [
        ({}, {0, 1, 2, 3}),
        ({"tenant": "acme"}, {0, 2, 3}),
        ({"digest": "sha256:aa"}, {2, 3}),
        ({"digest": ""}, {0, 1}),
        ({"since": NOVEMBER + 1}, {1, 2, 3}),
        ({"until": NOVEMBER + 2}, {0, 1}),
        ({"since": NOVEMBER + 1, "until": JANUARY}, {1, 2}),
        ({"since": 1e300}, set()),
        ({"since": -5.0, "until": 1e300, "tenant": "acme", "digest": "sha256:aa"}, {2, 3}),
    ]
    for selection, wanted in selections:
        assert [each.id for each in records.query(**selection)] == [made[i].id for i in sorted(wanted)], selection
        assert records.count(**selection) == len(wanted), selection


def test_whole_months_are_dropped_and_offsets_stay(records: Records) -> None:
    records.ingest("w.spool", 10, [record(NOVEMBER, 1)])
    records.ingest("w.spool", 20, [record(DECEMBER, 2)])
    records.ingest("v.spool", 30, [record(NOVEMBER, 3)])
    assert records.drop_before(NOVEMBER + 3600) == []
    assert records.drop_before(DECEMBER) == ["2026-11"]
    assert [each.id for each in records.query()] == [record(DECEMBER, 2).id]
    assert (records.offset("w.spool"), records.offset("v.spool")) == (20, 30)


def test_a_late_record_of_a_dropped_month_is_stored_all_the_same(records: Records) -> None:
    records.ingest("w.spool", 10, [record(NOVEMBER, 1)])
    assert retention.drop_before(records, now=JANUARY, keep_days=14) == ["2026-11"]
    records.ingest("w.spool", 20, [record(NOVEMBER, 2)])
    assert records.count() == 1
    assert records.offset("w.spool") == 20


def test_what_a_poisoned_replica_worked_on_is_marked_whether_it_was_stored_before_or_comes_later(
    records: Records,
) -> None:
    def at(offset: float, noise: int, **values: Any) -> Inference:
        return record(NOVEMBER + offset, noise, replica="one", total_ms=1000.0, **values)

    before, across, within, after = at(-5.0, 1), at(-0.5, 2), at(3.0, 3), at(10.0, 4)
    beside, nowhere = replace(at(3.0, 5), replica="two"), replace(at(3.0, 6), replica="")
    records.ingest("w.spool", 10, [before, across])
    assert records.taints() == []
    records.taint("one", NOVEMBER, NOVEMBER + 10.0, "poisoned by bad@1")
    records.taint("one", NOVEMBER, NOVEMBER + 10.0, "poisoned by bad@1")
    records.ingest("w.spool", 20, [within, after, beside, nowhere])
    marked = {each.id: each.tainted for each in records.query() if each.tainted}
    assert marked == {across.id: "poisoned by bad@1", within.id: "poisoned by bad@1"}
    assert records.get(within.id) == replace(within, tainted="poisoned by bad@1")
    assert records.by_completion("chatcmpl-2", "acme").tainted == "poisoned by bad@1"
    assert records.get(after.id).tainted == ""
    assert records.taints() == [Taint(replica="one", since=NOVEMBER, until=NOVEMBER + 10.0, why="poisoned by bad@1")]


def test_marks_cross_months_and_go_with_the_month_that_they_end_in(records: Records) -> None:
    made = [record(DECEMBER - 1.0, 1, replica="one"), record(DECEMBER + 1.0, 2, replica="one")]
    records.ingest("w.spool", 10, made)
    records.taint("one", DECEMBER - 2.0, DECEMBER + 2.0, "across")
    records.taint("one", DECEMBER - 9.0, DECEMBER - 8.0, "old")
    assert [each.tainted for each in records.query()] == ["across", "across"]
    assert records.drop_before(DECEMBER) == ["2026-11"]
    assert [each.why for each in records.taints()] == ["across"]
    assert [each.tainted for each in records.query()] == ["across"]


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_store_from_before_there_were_marks_takes_them(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    where = tmp_path / "records" if store == "sqlite" else request.getfixturevalue("empty_postgres_url")
    old = SqlRecords(where, clock=lambda: NOVEMBER)
    old.ingest("w.spool", 10, [record(NOVEMBER, 1, replica="one")])
    if store == "postgresql":
        engine = connect(str(where))
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE taints")
            connection.exec_driver_sql("DELETE FROM graftline_migrations WHERE room = 'taints'")
        engine.dispose()
    old.close()
    new = SqlRecords(where, clock=lambda: NOVEMBER)
    new.taint("one", NOVEMBER - 1.0, NOVEMBER + 1.0, "why")
    assert [each.tainted for each in new.query()] == ["why"]
    new.close()


def test_records_are_kept_for_at_least_a_day(records: Records) -> None:
    with pytest.raises(ValueError, match="at least one day"):
        retention.drop_before(records, now=JANUARY, keep_days=0)


@pytest.mark.postgres
def test_two_ingesters_may_meet_at_the_first_record_of_a_month(empty_postgres_url: str) -> None:
    first, second = SqlRecords(empty_postgres_url), SqlRecords(empty_postgres_url)
    first.ingest("w.spool", 10, [record(NOVEMBER, 1)])
    second.ingest("w.spool", 10, [record(NOVEMBER, 1)])
    second.ingest("w.spool", 20, [record(DECEMBER, 2)])
    first.ingest("w.spool", 20, [record(DECEMBER, 2)])
    assert first.count() == second.count() == 2
    first.close()
    second.close()


def test_a_database_that_is_away_is_an_error_that_may_pass(tmp_path: Path) -> None:
    away = SqlRecords(f"postgresql+psycopg://graftline@/postgres?host={tmp_path}")
    with pytest.raises(StoreAway) as caught:
        away.ingest("w.spool", 10, [record(NOVEMBER)])
    assert caught.value.retryable
    away.close()


def test_a_folder_that_cannot_be_made_is_an_error_that_may_pass(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SqlRecords(tmp_path / "file" / "records")
    with pytest.raises(StoreAway):
        store.ingest("w.spool", 10, [record(NOVEMBER)])


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_record_that_no_database_can_hold_is_named_bad_and_its_words_are_not_told(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    sql = SqlRecords(tmp_path if store == "sqlite" else request.getfixturevalue("empty_postgres_url"))
    with pytest.raises(BadRecord) as caught:
        sql.ingest("w.spool", 10, [record(NOVEMBER, 1), record(NOVEMBER, 2, user="secret", prompt_tokens=1 << 70)])
    assert "secret" not in str(caught.value)
    assert sql.count() == 0
    assert sql.offset("w.spool") == 0
    sql.close()


def test_sqlite_by_url_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="Give the folder's path"):
        SqlRecords("sqlite:///records.db")
