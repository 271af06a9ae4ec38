"""Stored completions: what every store of records promises the SDK's callers, on memory, SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from monitoring.database import connect, migrate
from monitoring.records.errors import NotFound
from monitoring.records.events import Inference, decode, encode, from_parts
from monitoring.records.sql import SqlRecords
from monitoring.records.store import MemoryRecords, Records
from monitoring.records.tables import STEPS
from monitoring.records.taints import Taint

NOVEMBER = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
ODD_KEY = "a\"b.c'$[0]é"


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    if request.param == "memory":
        yield MemoryRecords()
        return
    where = tmp_path / "records" if request.param == "sqlite" else request.getfixturevalue("empty_postgres_url")
    store = SqlRecords(where, clock=lambda: NOVEMBER)
    yield store
    store.close()


def answer(noise: int, at: float | None = None, **values: Any) -> Inference:
    at = NOVEMBER + noise if at is None else at
    given: dict[str, Any] = {
        "id": from_parts(int(at * 1000), 0, noise),
        "completion_id": f"chatcmpl-{noise}",
        "tenant": "acme",
        "endpoint": "chat",
        "model": "support",
        "started_at": at,
        "status": 200,
        "stored": True,
        "captured": "full",
        "request": "{}",
        "response": "{}",
    }
    return Inference(**(given | values))


def ingest(records: Records, *events: Inference) -> None:
    records.ingest("w.spool", 10, [decode(encode(event)) for event in events])


def ids(found: Sequence[Inference]) -> list[str]:
    return [each.completion_id.removeprefix("chatcmpl-") for each in found]


def test_only_a_tenants_own_stored_chat_answers_are_listed(records: Records) -> None:
    ingest(
        records,
        answer(1),
        answer(2, stored=False),
        answer(3, tenant="other"),
        answer(4, endpoint="responses"),
        answer(5, completion_id=""),
        answer(6),
    )
    assert ids(records.stored("acme")) == ["1", "6"]
    assert ids(records.stored("other")) == ["3"]
    assert records.stored("nobody") == []
    assert records.stored("acme", limit=1) == [answer(1)]


def test_pages_follow_one_another_both_ways_and_over_the_end_of_a_month(records: Records) -> None:
    ingest(records, *(answer(i) for i in range(3)), *(answer(i, at=DECEMBER + i) for i in (3, 4)))
    assert ids(records.stored("acme", limit=2)) == ["0", "1"]
    assert ids(records.stored("acme", limit=2, after="chatcmpl-1")) == ["2", "3"]
    assert ids(records.stored("acme", limit=2, after="chatcmpl-3")) == ["4"]
    assert ids(records.stored("acme", newest_first=True, limit=3)) == ["4", "3", "2"]
    assert ids(records.stored("acme", newest_first=True, after="chatcmpl-2")) == ["1", "0"]
    for foreign in ("chatcmpl-9", ""):
        with pytest.raises(NotFound):
            records.stored("acme", after=foreign)
    with pytest.raises(NotFound):
        records.stored("other", after="chatcmpl-1")


def test_filters_ask_for_the_model_and_for_pairs_of_the_metadata_as_it_is_now(records: Records) -> None:
    ingest(
        records,
        answer(1, metadata={"team": "a", "lang": "de"}),
        answer(2, metadata={"team": "a"}, model="other"),
        answer(3, metadata={"team": "b", ODD_KEY: "x"}),
        answer(4),
    )
    assert ids(records.stored("acme", model="support")) == ["1", "3", "4"]
    assert ids(records.stored("acme", metadata={"team": "a"})) == ["1", "2"]
    assert ids(records.stored("acme", metadata={"team": "a", "lang": "de"})) == ["1"]
    assert ids(records.stored("acme", metadata={ODD_KEY: "x"})) == ["3"]
    assert records.stored("acme", metadata={"team": "c"}) == []
    assert records.relabel("chatcmpl-1", "acme", {"team": "c"}).metadata == {"team": "c"}
    assert ids(records.stored("acme", metadata={"team": "a"})) == ["2"]
    assert ids(records.stored("acme", metadata={"team": "c"})) == ["1"]
    assert records.stored("acme", metadata={"team": "a"}, model="support") == []


def test_metadata_is_replaced_and_the_record_stays_as_it_came(records: Records) -> None:
    came = answer(1, metadata={"a": "1"})
    ingest(records, came)
    assert records.stored_one("chatcmpl-1", "acme") == came
    assert records.relabel("chatcmpl-1", "acme", {"b": "2"}).metadata == {"b": "2"}
    assert records.stored_one("chatcmpl-1", "acme").metadata == {"b": "2"}
    assert records.relabel("chatcmpl-1", "acme", {}).metadata == {}
    assert [each.metadata for each in records.stored("acme")] == [{}]
    assert records.get(came.id) == records.by_completion("chatcmpl-1", "acme") == came


def test_a_deleted_answer_is_gone_for_good_but_its_place_in_the_list_is_known(records: Records) -> None:
    ingest(records, *(answer(i) for i in range(4)))
    records.relabel("chatcmpl-1", "acme", {"b": "2"})
    records.unstore("chatcmpl-1", "acme")
    assert ids(records.stored("acme")) == ["0", "2", "3"]
    assert ids(records.stored("acme", after="chatcmpl-1", limit=1)) == ["2"]
    for change in (records.unstore, records.stored_one):
        with pytest.raises(NotFound):
            change("chatcmpl-1", "acme")
    with pytest.raises(NotFound):
        records.relabel("chatcmpl-1", "acme", {})
    assert records.by_completion("chatcmpl-1", "acme") == answer(1)  # for the loop, by the key's policy


def test_nobody_reads_or_changes_what_is_anothers_or_was_not_stored(records: Records) -> None:
    ingest(records, answer(1), answer(2, stored=False))
    for completion_id, tenant in (("chatcmpl-1", "other"), ("chatcmpl-2", "acme"), ("chatcmpl-9", "acme")):
        with pytest.raises(NotFound):
            records.stored_one(completion_id, tenant)
        with pytest.raises(NotFound):
            records.relabel(completion_id, tenant, {"a": "1"})
        with pytest.raises(NotFound):
            records.unstore(completion_id, tenant)
    assert records.stored("acme") == [answer(1)]


def test_what_must_not_be_trusted_is_marked_here_too(records: Records) -> None:
    ingest(records, answer(1, replica="r1"))
    records.taint("r1", NOVEMBER - 1, NOVEMBER + 9, "nan")
    assert records.taints() == [Taint(replica="r1", since=NOVEMBER - 1, until=NOVEMBER + 9, why="nan")]
    assert [each.tainted for each in records.stored("acme")] == ["nan"]
    assert records.stored_one("chatcmpl-1", "acme").tainted == "nan"
    assert records.relabel("chatcmpl-1", "acme", {"a": "1"}).tainted == "nan"


def test_changes_go_with_their_month(records: Records) -> None:
    ingest(records, answer(1, at=DECEMBER - 9), answer(2, at=DECEMBER + 9))
    records.relabel("chatcmpl-1", "acme", {"a": "1"})
    records.relabel("chatcmpl-2", "acme", {"a": "2"})
    assert records.drop_before(DECEMBER) == ["2026-11"]
    assert [each.metadata for each in records.stored("acme")] == [{"a": "2"}]
    ingest(records, answer(1, at=DECEMBER - 9))
    assert records.stored_one("chatcmpl-1", "acme").metadata == {}


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_list_walks_an_index_of_stored_answers_alone(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A database that was made before stored completions gets both the index and the table."""
    engine = connect(
        f"sqlite:///{tmp_path}/a.db" if store == "sqlite" else request.getfixturevalue("empty_postgres_url")
    )
    migrate(engine, "records", STEPS[:2])
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX IF EXISTS inferences_stored")
    assert migrate(engine, "records", STEPS) == len(STEPS) - 2
    asked = (
        "SELECT * FROM inferences WHERE tenant = 'a' AND inferences.stored AND endpoint = 'chat' ORDER BY id LIMIT 9"
    )
    with engine.begin() as connection:
        assert sa.inspect(connection).has_table("stored_changes")
        if store == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}").all()
            assert "inferences_stored" in str(plan), plan
            assert "TEMP B-TREE" not in str(plan), plan
        else:
            have = {row[0] for row in connection.execute(sa.text("SELECT indexname FROM pg_indexes"))}
            assert "inferences_stored" in have
    engine.dispose()


def test_a_nul_is_kept_and_asked_for_as_what_stands_in_its_place(records: Records) -> None:
    ingest(records, answer(1, metadata={"a": "x\0y"}))
    assert ids(records.stored("acme", metadata={"a": "x\ufffdy"})) == ["1"]
    assert records.relabel("chatcmpl-1", "acme", {"b\0": "\0"}).metadata == {"b\ufffd": "\ufffd"}
    assert records.stored_one("chatcmpl-1", "acme").metadata == {"b\ufffd": "\ufffd"}
    assert records.stored("acme", model="a\0") == []
    assert records.stored("acme", metadata={"\0": "\0"}) == []
    with pytest.raises(NotFound):
        records.stored_one("chatcmpl\0", "acme")
    with pytest.raises(NotFound):
        records.stored("acme", after="\0")
