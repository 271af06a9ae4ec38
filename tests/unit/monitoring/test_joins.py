"""From exposures, answers and feedback to one row a unit: intention to treat, windows, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from monitoring.records.codes import KINDS, LAYOUT, RATER_KINDS, UNIT_KINDS, Page, chunks, code, unpacked
from monitoring.records.events import Event, Exposure, Feedback, Inference, from_parts
from monitoring.records.joins import Trial, UnitTable, empty, joined, tallied

START = 1_763_700_000.0
ARMS = ("old", "new")


def shown(number: int, unit: str, arm: str = "new", at: float = 0.0, **values: Any) -> Exposure:
    given: dict[str, Any] = {
        "id": from_parts(int((START + at) * 1000), 0, number),
        "at": START + at,
        "experiment": "e",
        "unit": unit,
        "unit_kind": "user",
        "arm": arm,
        "request_id": f"r{number}",
    }
    return Exposure(**(given | values))


def came(number: int, **values: Any) -> Inference:
    """The answer to the exposure of the same number."""
    given: dict[str, Any] = {
        "id": from_parts(int(START * 1000), 0, number),
        "request_id": f"r{number}",
        "completion_id": f"chatcmpl-{number}",
        "endpoint": "chat",
        "model": "support",
        "experiment": "e",
        "started_at": START,
        "status": 200,
    }
    return Inference(**(given | values))


def said(number: int, target: str, at: float, value: float | None = 1.0, **values: Any) -> Feedback:
    given: dict[str, Any] = {
        "id": from_parts(int((START + at) * 1000), 0, number),
        "at": START + at,
        "target": target,
        "kind": "thumbs",
        "value": value,
    }
    return Feedback(**(given | values))


def trial(*events: Event) -> Trial:
    pages = {
        page: unpacked(page, [chunk.packed for chunk in chunks(events) if chunk.page == page]) for page in Page
    }
    return Trial(exposures=pages[Page.EXPOSURES], outcomes=pages[Page.OUTCOMES], feedback=pages[Page.FEEDBACK])


def counted(*events: Event, unit_kind: str = "user", arms: tuple[str, ...] = ARMS, **how: Any) -> UnitTable:
    return tallied(joined(trial(*events), arms=arms, unit_kind=unit_kind), **how)


def by_unit(table: UnitTable, *names: str) -> list[tuple[float, ...]]:
    """Rows in the order of first exposure."""
    order = np.argsort(table.first_at)
    return [tuple(getattr(table, name)[place] for name in names) for place in order]


def test_a_unit_stays_in_the_arm_of_its_first_exposure_and_is_reported_when_it_was_seen_in_another() -> None:
    """The rows come in no order: gateways' batches overlap."""
    table = counted(
        shown(3, "a", "old", at=30.0), shown(1, "a", "new", at=10.0), shown(2, "b", "old", at=20.0), came(3), came(2)
    )
    assert by_unit(table, "arm", "requests", "exposed", "both") == [(1, 1, 2, True), (0, 1, 1, False)]
    assert table.contamination == 0.5
    assert table.silent == 1


def test_the_propensity_and_bucket_are_those_of_the_first_exposure() -> None:
    table = counted(shown(1, "a", propensity=0.25, bucket=7), shown(2, "a", at=5.0, propensity=0.5, bucket=7))
    assert by_unit(table, "propensity", "bucket") == [(0.25, 7)]


def test_what_comes_after_the_window_is_as_if_it_had_not_come() -> None:
    events = (
        shown(1, "a"),
        came(1),
        shown(2, "a", at=60.0),
        came(2),
        shown(3, "a", at=60.1),
        came(3),
        said(10, "chatcmpl-1", 59.0, 1.0),
        said(11, "chatcmpl-1", 61.0, 0.0),  # changes its mind too late
        said(12, "chatcmpl-2", 61.0, 1.0),
    )
    table = counted(*events, window_s=60.0)
    assert by_unit(table, "requests", "thumbs_up", "thumbs_down") == [(2, 1, 0)]
    assert by_unit(counted(*events), "requests", "thumbs_up", "thumbs_down") == [(3, 1, 1)]


def test_only_units_whose_window_has_closed_are_kept() -> None:
    events = (shown(1, "a"), came(1), shown(2, "b", "old", at=10.0), came(2))
    assert by_unit(counted(*events, window_s=60.0, now=START + 65.0), "arm", "requests") == [(1, 1)]
    early = counted(*events, window_s=60.0, now=START + 5.0)
    assert (early.arm.size, early.units, early.contamination) == (0, 2, 0.0)
    assert counted(*events, window_s=60.0, now=START + 70.0).arm.size == 2


def test_the_request_of_the_first_exposure_counts_although_it_began_before() -> None:
    table = counted(shown(1, "a"), replace(came(1), started_at=START - 0.2), window_s=60.0)
    assert by_unit(table, "requests") == [(1,)]


def test_a_request_that_the_sdk_sent_again_is_one_request_with_one_answer() -> None:
    table = counted(
        shown(1, "a"),
        came(1, status=503, error="no_capacity"),
        shown(2, "a", at=1.0),
        came(2, retry_count=1, status=502, error="engine_broke"),
        shown(3, "a", at=2.0),
        came(3, retry_count=2, completion_tokens=9),
    )
    names = ("requests", "errors", "retries", "answered", "completion_tokens")
    assert by_unit(table, *names) == [(1, 1, 2, 1, 9)]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"status": 200}, (1, 0, 0)),
        ({"status": 400, "error": "bad_request"}, (0, 0, 0)),
        ({"status": 503, "error": "no_capacity"}, (0, 1, 0)),
        ({"incomplete": True, "error": "engine_broke"}, (0, 1, 0)),
        ({"incomplete": True, "error": "client_left"}, (0, 0, 1)),
        ({"status": 499, "error": "client_left"}, (0, 0, 1)),
    ],
)
def test_what_is_an_answer_what_an_error_and_what_the_clients_own_doing(
    values: dict[str, Any], wanted: tuple[int, int, int]
) -> None:
    assert by_unit(counted(shown(1, "a"), came(1, **values)), "answered", "errors", "left") == [wanted]


def test_an_answer_whose_first_token_was_not_timed_is_not_judged_by_it() -> None:
    table = counted(shown(1, "a"), came(1, total_ms=900.0, finish="content_filter"), first_token_ms=1.0, total_ms=899.0)
    names = ("answered", "timed", "first_token_over", "total_over", "filtered")
    assert by_unit(table, *names) == [(1, 0, 0, 1, 1)]


def test_a_thumb_that_was_taken_back_is_neither_up_nor_down_and_a_scalar_so_is_no_zero() -> None:
    table = counted(
        shown(1, "a"),
        came(1),
        said(5, "chatcmpl-1", 1.0),
        said(6, "chatcmpl-1", 2.0, None),
        said(7, "chatcmpl-1", 1.0, 5.0, kind="scalar", name="stars"),
        said(8, "chatcmpl-1", 2.0, None, kind="scalar", name="stars"),
        said(9, "chatcmpl-1", 2.0, None, kind="implicit", name="copied"),
        said(10, "chatcmpl-1", 2.0, 0.0, kind="implicit", name="abandoned"),
        scalars=("stars",),
    )
    assert by_unit(table, "thumbs_up", "thumbs_down") == [(0, 0)]
    assert [column.tolist() for column in table.scalars["stars"]] == [[0.0], [0.0]]
    assert (table.implicit["copied"].tolist(), table.implicit["abandoned"].tolist()) == ([1.0], [0.0])


def test_feedback_on_a_conversation_reaches_the_unit_whether_that_is_the_conversation_or_a_user() -> None:
    talk = said(9, "c-1", 5.0, target_kind="conversation")
    as_unit = counted(shown(1, "c-1", unit_kind="conversation"), talk, unit_kind="conversation")
    of_user = counted(shown(1, "a"), came(1, conversation="c-1"), talk)
    assert by_unit(as_unit, "thumbs_up") == by_unit(of_user, "thumbs_up") == [(1,)]


def test_a_pseudonymous_unit_joins_by_its_pseudonym() -> None:
    name = "hmac:" + "0f" * 16
    talk = said(9, name, 5.0, target_kind="conversation")
    table = counted(shown(1, name, unit_kind="conversation"), talk, unit_kind="conversation")
    assert by_unit(table, "thumbs_up") == [(1,)]


def test_feedback_joins_by_the_foreseen_id_while_the_answer_is_not_recorded() -> None:
    events = (shown(1, "a", completion_id="chatcmpl-1"), said(9, "chatcmpl-1", 5.0))
    assert by_unit(counted(*events), "thumbs_up", "requests") == [(1, 0)]


def test_names_that_are_missing_join_nothing() -> None:
    events = (
        shown(1, "a", request_id=""),
        came(1, request_id="", completion_id=""),
        shown(2, "b", request_id=""),
        said(9, "", 5.0),
        said(8, "", 5.0, target_kind="conversation"),
    )
    table = counted(*events)
    assert table.requests.sum() == table.thumbs_up.sum() == 0
    assert table.unmatched == 1


def test_what_is_left_out_is_counted() -> None:
    table = counted(
        shown(1, "a"),
        came(1),
        shown(2, "k1", unit_kind="key"),
        came(2),
        shown(3, "b", "removed"),
        came(3),
        came(4),  # its exposure was lost
        shown(5, "c"),  # its outcome has not come
    )
    assert (table.units, table.unnamed, table.strange, table.unmatched, table.silent) == (2, 1, 1, 1, 1)


def test_swapping_the_arms_flips_the_difference() -> None:
    events: list[Event] = []
    for number in range(40):
        unit, arm = f"u-{number}", ARMS[number % 2]
        up = arm == "new" or number % 8 == 0
        events += [shown(number, unit, arm, at=number), came(number), said(number, f"chatcmpl-{number}", 60.0, float(up))]

    def difference(arms: tuple[str, str]) -> float:
        table = counted(*events, arms=arms)
        means = [table.thumbs_up[table.arm == place].mean() for place in (0, 1)]
        return float(means[1] - means[0])

    assert difference(("old", "new")) == 0.75
    assert difference(("new", "old")) == -0.75


def test_ten_thousand_words_of_one_rater_on_one_answer_are_one() -> None:
    words = [said(number, "chatcmpl-1", 1.0 + number / 1e4, float(number % 2)) for number in range(10_000)]
    table = counted(shown(1, "a"), came(1), *words)
    assert by_unit(table, "thumbs_up", "thumbs_down") == [(1, 0)]


def test_an_empty_trial_gives_an_empty_table() -> None:
    assert tallied(joined(empty(), arms=ARMS, unit_kind="user")).arm.size == 0


def test_rows_are_packed_as_their_columns_are_read_and_codes_never_change() -> None:
    """What is stored must be readable for ever: sizes, codes and the order of the kinds are part of the format."""
    assert {page: LAYOUT[page].itemsize for page in Page} == {1: 59, 2: 58, 3: 50}
    assert code("acme", "user", "u-1") == -6_143_094_446_020_871_434
    assert UNIT_KINDS == ("user", "conversation", "key", "request")
    assert KINDS == ("thumbs", "scalar", "comment", "correction", "preference", "implicit")
    assert RATER_KINDS == ("user", "reviewer", "judge", "system")
    row = trial(shown(1, "a", bucket=9999, propensity=0.125)).exposures[0]
    assert (row["at"], row["bucket"], row["propensity"]) == (START, 9999, 0.125)
    assert row["unit"] == code("", "user", "a")
    assert chunks([came(1, experiment="")]) == []
