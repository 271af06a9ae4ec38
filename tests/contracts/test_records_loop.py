"""Exposures, feedback and their analysis: what every store of records promises, on memory, SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from monitoring.database import connect, migrate
from monitoring.records.events import Event, Exposure, Feedback, Inference, decode, encode, from_parts
from monitoring.records.feedback import Orphans
from monitoring.records.ingest import Ingester
from monitoring.records.joins import joined, sliced
from monitoring.records.spool import Spool
from monitoring.records.sql import SqlRecords
from monitoring.records.store import MemoryRecords, Records
from monitoring.records.sums import sums
from monitoring.records.tables import STEPS

NOVEMBER = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
DAY_S = 86400.0
ARMS = ("old", "new")


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    if request.param == "memory":
        yield MemoryRecords()
        return
    where = tmp_path / "records" if request.param == "sqlite" else request.getfixturevalue("empty_postgres_url")
    store = SqlRecords(where, clock=lambda: NOVEMBER)
    yield store
    store.close()


def an_id(at: float, noise: int) -> str:
    return from_parts(int(at * 1000), 0, noise)


def exposure(noise: int, unit: str, arm: str = "new", at: float = NOVEMBER, **values: Any) -> Exposure:
    given: dict[str, Any] = {
        "id": an_id(at, noise),
        "at": at,
        "tenant": "acme",
        "experiment": "e1",
        "alias": "support@live",
        "unit": unit,
        "unit_kind": "user",
        "arm": arm,
        "digest": "sha256:aa",
        "propensity": 0.5,
        "bucket": noise % 10_000,
        "request_id": f"r{noise}",
        "completion_id": f"chatcmpl-{noise}",
    }
    return Exposure(**(given | values))


def inference(noise: int, at: float = NOVEMBER, **values: Any) -> Inference:
    """What came of the exposure of the same number."""
    given: dict[str, Any] = {
        "id": an_id(at, noise),
        "completion_id": f"chatcmpl-{noise}",
        "request_id": f"r{noise}",
        "tenant": "acme",
        "endpoint": "chat",
        "model": "support",
        "experiment": "e1",
        "started_at": at - 0.01,  # a request comes before its exposure is written
        "status": 200,
    }
    return Inference(**(given | values))


def feedback(noise: int, target: int | str, kind: str = "thumbs", at: float = NOVEMBER + 60, **values: Any) -> Feedback:
    given: dict[str, Any] = {
        "id": an_id(at, noise),
        "at": at,
        "tenant": "acme",
        "target": target if isinstance(target, str) else f"chatcmpl-{target}",
        "kind": kind,
        "rater": "u-1",
        "value": 1.0 if kind == "thumbs" else None,
    }
    return Feedback(**(given | values))


def stored(records: Records, *events: Event) -> None:
    """Through a spool line, as in life."""
    records.ingest("w.spool", 10, [decode(encode(event)) for event in events])


@dataclass(frozen=True, kw_only=True)
class Column:
    what: str
    parameter: str = ""
    window_s: float = 0.0

    @property
    def key(self) -> str:
        return self.what


ASKED = (
    *(Column(what=what) for what in ("requests", "retries", "errors", "left", "answered", "prompt_tokens")),
    *(Column(what=what) for what in ("output_tokens", "thumbs_up", "thumbs_down", "regenerated", "comments")),
    Column(what="first_token_over", parameter="500"),
    Column(what="scalar_sum", parameter="stars"),
)


def table(records: Records) -> Any:
    """The units of the experiment, their columns by name."""
    found = joined(records.trial("e1"), arms=ARMS, unit_kind="user")
    values = {each.name: getattr(found, each.name) for each in fields(found)}
    return SimpleNamespace(**values, contamination=found.contamination, **sums(found, ASKED))


def test_exposures_and_feedback_come_back_as_they_were_in_pages(records: Records) -> None:
    shown = [exposure(i, f"u-{i}", "old" if i % 2 else "new") for i in range(5)]
    said = [
        feedback(10, 1),
        feedback(11, 1, "preference", other="chatcmpl-2", rater_kind="reviewer", source="review"),
        feedback(12, 2, "correction", text="so → instead", key_id="k1"),
        feedback(13, "c-1", "scalar", target_kind="conversation", name="stars", value=-2.5),
    ]
    stored(records, *shown, *said, exposure(9, "u-1", experiment="e2"))
    assert records.exposures("e1", limit=3) == shown[:3]
    assert records.exposures("e1", after=shown[2].id) == shown[3:]
    assert records.exposures("e3") == []
    assert records.feedback(limit=3) == said[:3]
    assert records.feedback(after=said[2].id) == said[3:]
    assert records.feedback(target="chatcmpl-1", tenant="acme") == said[:2]
    assert records.feedback(tenant="other") == []
    assert records.feedback(since=NOVEMBER + 60, until=NOVEMBER + 61) == said
    assert records.feedback(since=NOVEMBER + 61) == []


def test_one_batch_may_hold_every_kind_and_comes_once_however_often_it_is_read(records: Records) -> None:
    batch: list[Event] = [exposure(1, "u-1"), inference(1), feedback(2, 1)]
    for offset in (10, 10, 30):
        records.ingest("w.spool", offset, batch)
    records.ingest("v.spool", 10, [*batch, exposure(3, "u-1", "old"), inference(3), feedback(4, 3), feedback(4, 3)])
    assert len(records.exposures("e1")) == 2
    assert len(records.feedback(history=True)) == 2
    trial = records.trial("e1")
    assert (trial.exposures.size, trial.outcomes.size, trial.feedback.size) == (2, 2, 2)
    assert records.offset("w.spool") == 30


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_two_ingesters_that_move_the_same_lines_at_once_count_nothing_twice(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    where = tmp_path / "records" if store == "sqlite" else request.getfixturevalue("empty_postgres_url")
    stores = [SqlRecords(where, clock=lambda: NOVEMBER) for _ in range(2)]
    batches: list[list[Event]] = [[exposure(i, f"u-{i}"), inference(i), feedback(100 + i, i)] for i in range(20)]

    def move(mine: SqlRecords) -> None:
        for offset, batch in enumerate(batches):
            mine.ingest("w.spool", offset, batch)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(move, stores))
    trial = stores[0].trial("e1")
    assert (trial.exposures.size, trial.outcomes.size, trial.feedback.size) == (20, 20, 20)
    for each in stores:
        each.close()


def test_all_kinds_go_through_a_spool_and_its_ingester(records: Records, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "gateway")
    events: list[Event] = [exposure(1, "u-1"), inference(1), feedback(2, 1)]
    spool.append([encode(event) for event in events], sync=True)
    spool.close()
    assert Ingester(tmp_path / "spool", records).step() == 3
    assert records.exposures("e1") == events[:1]
    assert records.query() == events[1:2]
    assert records.feedback() == events[2:]


def test_the_last_word_of_one_rater_and_kind_counts_and_the_others_are_kept(records: Records) -> None:
    first, second = feedback(1, 7), feedback(2, 7, at=NOVEMBER + 90, value=0.0)
    stars = feedback(3, 7, "scalar", name="stars", value=4.0)
    tone = feedback(4, 7, "scalar", name="tone", value=2.0)
    other_rater = feedback(5, 7, rater="u-2")
    reviewer = feedback(6, 7, rater_kind="reviewer")
    elsewhere = feedback(8, 8)
    next_month = feedback(9, 8, at=DECEMBER + 5, value=0.0)
    stored(records, second, first, stars, tone, other_rater, reviewer, elsewhere, next_month)
    assert {each.id for each in records.feedback(target="chatcmpl-7")} == {
        each.id for each in (second, stars, tone, other_rater, reviewer)
    }
    assert len(records.feedback(history=True)) == 8
    assert records.feedback(target="chatcmpl-8") == [next_month]
    assert records.feedback(target="chatcmpl-8", until=DECEMBER) == []  # replaced, though that word is not asked for
    assert [each.id for each in records.feedback(limit=2)] == sorted(
        each.id for each in (stars, tone, other_rater, reviewer)
    )[:2]


def test_pages_of_what_counts_are_full_although_most_was_replaced(records: Records) -> None:
    said = [feedback(i, i % 3, at=NOVEMBER + i, rater=f"u-{i % 2}") for i in range(1200)]
    stored(records, *said)
    assert records.feedback(limit=4) == said[-6:-2]
    assert records.feedback(limit=4, after=said[-3].id) == said[-2:]


def test_feedback_waits_for_its_answer_and_joins_only_its_own_tenants(records: Records) -> None:
    early, foreign, never = feedback(1, 1), feedback(2, 1, tenant="other"), feedback(3, "chatcmpl-nowhere")
    talk = feedback(4, "c-" + "x" * 300, "comment", target_kind="conversation", text="good")
    half = feedback(5, "c-" + "x" * 301, "comment", target_kind="conversation", text="of another")
    stored(records, early, foreign, never, talk, half)
    assert records.pending() == [early, foreign, never, talk, half]
    assert records.pending(tenant="other", limit=1) == [foreign]
    stored(records, inference(1), inference(2, conversation="c-" + "x" * 300), exposure(1, "u-1"))
    assert records.pending() == [foreign, never, half]
    now = NOVEMBER + 60 + DAY_S
    assert records.expire(now - 1, DAY_S) == Orphans(waiting=3, expired=0)
    assert table(records).thumbs_up.tolist() == [1.0]
    assert records.expire(now + 1, DAY_S) == Orphans(waiting=0, expired=3)
    assert records.feedback() == [early, talk]
    assert records.expire(now + 99, 0.0) == Orphans(waiting=0, expired=0)


def test_an_answer_of_an_earlier_month_is_found_too(records: Records) -> None:
    stored(records, inference(1, at=DECEMBER - 5), feedback(2, 1, at=DECEMBER + 5))
    assert records.expire(DECEMBER + DAY_S, 60.0) == Orphans(waiting=0, expired=0)
    assert len(records.feedback()) == 1


def test_what_expired_does_not_count_even_when_its_answer_comes_after_all(records: Records) -> None:
    stored(records, exposure(1, "u-1"), feedback(2, 1), feedback(3, 9), inference(9), exposure(9, "u-1"))
    assert table(records).thumbs_up.tolist() == [2.0]
    assert records.expire(NOVEMBER + DAY_S, 60.0) == Orphans(waiting=0, expired=1)
    stored(records, inference(1))
    assert table(records).thumbs_up.tolist() == [1.0]


def test_an_experiment_over_the_end_of_a_month_is_analysed_whole_and_dropped_with_its_months(records: Records) -> None:
    stored(
        records,
        exposure(1, "u-1", "old", at=DECEMBER - 5),
        exposure(2, "u-1", "new", at=DECEMBER + 5),
        inference(1, at=DECEMBER - 5),
        inference(2, at=DECEMBER + 5),
        feedback(3, 1, at=DECEMBER + 9),
        feedback(4, "chatcmpl-9", at=DECEMBER - 1),
    )
    whole = table(records)
    assert (whole.arm.tolist(), whole.requests.tolist(), whole.thumbs_up.tolist()) == ([0], [2.0], [1.0])
    assert whole.both.tolist() == [True]
    assert records.drop_before(DECEMBER) == ["2026-11"]
    rest = table(records)
    assert (rest.arm.tolist(), rest.requests.tolist(), rest.thumbs_up.tolist()) == ([1], [1.0], [0.0])
    assert [each.id for each in records.pending()] == [an_id(DECEMBER + 9, 3)]
    assert len(records.exposures("e1")) == 1


def test_a_unit_is_its_tenants_and_its_row_sums_what_came_of_it(records: Records) -> None:
    stored(
        records,
        *(exposure(i, "u-1", "new", at=NOVEMBER + i) for i in (1, 2, 3)),
        exposure(4, "u-2", "old"),
        exposure(5, "u-1", "old", tenant="other"),
        inference(1, at=NOVEMBER + 1, completion_tokens=10, prompt_tokens=3, first_token_ms=900.0, total_ms=2000.0),
        inference(2, at=NOVEMBER + 2, status=500, error="engine_broke"),
        inference(3, at=NOVEMBER + 3, completion_tokens=5, first_token_ms=100.0, total_ms=9000.0, retry_count=1),
        inference(4, incomplete=True, error="client_left"),
        inference(5, tenant="other", completion_tokens=7, conversation="c-5"),
        feedback(11, 1),
        feedback(12, 3, value=0.0),
        feedback(13, 3, "implicit", name="regenerated"),
        feedback(14, 1, "scalar", name="stars", value=4.0),
        feedback(15, 1, "scalar", name="stars", value=2.0, rater="u-7"),
        feedback(16, 5, tenant="other", value=0.0),
        feedback(17, 5),  # acme speaks of the other's answer
        feedback(18, 1, rater_kind="judge", value=0.0),
        feedback(19, "c-5", "comment", tenant="other", target_kind="conversation", text="fine"),
    )
    seen = table(records)
    rows = {
        (ARMS[arm], bucket): place
        for place, (arm, bucket) in enumerate(zip(seen.arm.tolist(), seen.bucket.tolist(), strict=True))
    }
    one, two, three = rows["new", 1], rows["old", 4], rows["old", 5]
    assert seen.arm.size == 3
    assert seen.first_at[one] == NOVEMBER + 1

    def row(place: int, *names: str) -> list[float]:
        return [getattr(seen, name)[place] for name in names]

    assert row(one, "exposed", "requests", "retries", "errors", "left", "answered") == [3, 2, 1, 1, 0, 2]
    assert row(one, "output_tokens", "prompt_tokens", "first_token_over", "scalar_sum") == [15, 3, 2, 6]
    assert row(one, "thumbs_up", "thumbs_down", "regenerated") == [1, 1, 1]
    assert row(two, "requests", "errors", "left", "answered") == [1, 0, 1, 0]
    assert row(three, "output_tokens", "thumbs_up", "thumbs_down", "comments") == [7, 0, 1, 1]
    assert (seen.unmatched, seen.silent, seen.contamination) == (0, 0, 0.0)


def test_the_tags_of_an_exposure_slice_its_unit(records: Records) -> None:
    stored(
        records,
        exposure(1, "u-1", tags={"language": "de"}),
        exposure(2, "u-2", tags={"language": "ünï\0"}),
        exposure(3, "u-3", tags={"language": "de"}, at=DECEMBER),
        exposure(4, "u-4"),
        exposure(5, "u-5", experiment="e2", tags={"language": "fr"}),
    )
    trial = records.trial("e1")
    place, values = sliced(joined(trial, arms=ARMS, unit_kind="user"), trial, "language")
    assert values == ("de", "ünï\ufffd")
    assert sorted(place.tolist()) == [-1, 0, 0, 1]
    assert [dict(each.tags) for each in records.exposures("e1")][-2:] == [{}, {"language": "de"}]


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_store_from_before_there_were_experiments_takes_them(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The tables as the version before made them, with a row in them."""
    where = tmp_path / "records" if store == "sqlite" else request.getfixturevalue("empty_postgres_url")
    made = SqlRecords(where, clock=lambda: NOVEMBER)
    made.ingest("w.spool", 10, [replace(inference(1), experiment="")])
    made.close()
    engine = connect(f"sqlite:///{tmp_path}/records/records-2026-11.db" if store == "sqlite" else str(where))
    with engine.begin() as connection:
        for name in ("exposures", "feedback", "chunks", "exposure_tags", "pending_feedback"):
            connection.exec_driver_sql(f"DROP TABLE {name}")
        connection.exec_driver_sql("DROP INDEX inferences_conversation")
        connection.exec_driver_sql("ALTER TABLE inferences DROP COLUMN experiment")
        connection.exec_driver_sql("UPDATE graftline_migrations SET step = 1 WHERE room = 'records'")
    engine.dispose()
    new = SqlRecords(where, clock=lambda: NOVEMBER)
    stored(new, exposure(2, "u-1"), inference(2), feedback(3, 1), feedback(4, 2))
    assert [each.experiment for each in new.query()] == ["", "e1"]
    assert new.pending() == []
    assert table(new).thumbs_up.tolist() == [1.0]
    new.close()


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_every_lookup_of_the_loop_uses_an_index(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/a.db" if store == "sqlite" else request.getfixturevalue("empty_postgres_url")
    engine = connect(where)
    migrate(engine, "records", STEPS)
    asked = {
        "SELECT tenant FROM inferences WHERE substr(conversation, 1, 200) IN ('a', 'b') AND conversation <> ''": (
            "inferences_conversation"
        ),
        "SELECT tenant FROM inferences WHERE completion_id IN ('a', 'b')": "inferences_completion",
        "SELECT * FROM feedback WHERE target IN ('a', 'b')": "feedback_target",
        "SELECT * FROM feedback WHERE tenant = 'a' AND target = 'b' ORDER BY id LIMIT 9": "feedback_target",
        "SELECT * FROM feedback WHERE tenant = 'a' ORDER BY id LIMIT 9": "feedback_tenant",
        "SELECT * FROM exposures WHERE experiment = 'a' ORDER BY id LIMIT 9": "exposures_experiment",
    }
    with engine.begin() as connection:
        if store == "sqlite":
            for statement, index in asked.items():
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
                assert index in str(plan), (statement, plan)
        else:
            have = {row[0] for row in connection.execute(sa.text("SELECT indexname FROM pg_indexes"))}
            assert set(asked.values()) <= have
    engine.dispose()


def test_an_experiment_that_nothing_has_happened_in_is_empty(records: Records) -> None:
    nothing = table(records)
    assert nothing.arm.size == 0
    assert nothing.contamination == 0.0
    assert np.array_equal(nothing.thumbs_up, np.zeros(0))
