"""From exposures, answers and feedback to one row a unit: intention to treat, windows, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adapters.experiments import metrics
from monitoring.records.codes import KINDS, LAYOUT, RATER_KINDS, UNIT_KINDS, Page, chunks, code, tags_code, unpacked
from monitoring.records.events import Event, Exposure, Feedback, Inference, from_parts
from monitoring.records.joins import Trial, empty, joined, sliced
from monitoring.records.sums import COLUMNS, sums

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
    pages = {page: unpacked(page, [chunk.packed for chunk in chunks(events) if chunk.page == page]) for page in Page}
    return Trial(exposures=pages[Page.EXPOSURES], outcomes=pages[Page.OUTCOMES], feedback=pages[Page.FEEDBACK])


@dataclass(frozen=True, kw_only=True)
class Column:
    what: str
    parameter: str = ""
    window_s: float = 0.0

    @property
    def key(self) -> str:
        return self.what


def counted(
    *events: Event, unit_kind: str = "user", arms: tuple[str, ...] = ARMS, window_s: float = 0.0, ms: float = 1e9
) -> Any:
    """The joined table, its columns laid over it by name; the scalar is `stars`."""
    table = joined(trial(*events), arms=arms, unit_kind=unit_kind)
    parameters = {"first_token_over": f"{ms}", "total_over": f"{ms}"}
    parameters |= {"scalar_sum": "stars", "scalar_count": "stars", "scalar_over": "stars>3"}
    asked = [Column(what=what, parameter=parameters.get(what, ""), window_s=window_s) for what in COLUMNS]
    columns = sums(table, asked)
    assert all(column.shape == table.arm.shape for column in columns.values())
    return SimpleNamespace(
        **{each.name: getattr(table, each.name) for each in fields(table)}, contamination=table.contamination, **columns
    )


def by_unit(table: Any, *names: str) -> list[tuple[float, ...]]:
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
    names = ("requests", "errors", "retries", "answered", "output_tokens")
    assert by_unit(table, *names) == [(1, 1, 2, 1, 9)]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"status": 200}, (1, 0, 0)),
        ({"status": 400, "error": "bad_request"}, (0, 1, 0)),
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


@pytest.mark.parametrize(
    ("values", "first", "total"),
    [
        ({"first_token_ms": 90.0, "total_ms": 100.0}, 0, 0),
        ({"first_token_ms": 101.0, "total_ms": 102.0}, 1, 1),
        ({"first_token_ms": 50.0, "total_ms": 500.0}, 0, 1),
        ({"total_ms": 99.0}, 0, 0),
        ({"total_ms": 101.0}, 1, 1),
        ({"status": 503, "total_ms": 1.0}, 1, 1),
        ({"incomplete": True, "error": "client_left", "total_ms": 50.0}, 0, 0),
        ({"incomplete": True, "error": "client_left", "total_ms": 150.0}, 1, 1),
    ],
)
def test_what_failed_is_late_and_what_was_not_streamed_is_judged_by_its_end(
    values: dict[str, Any], first: int, total: int
) -> None:
    table = counted(shown(1, "a"), came(1, **values), ms=100.0)
    assert by_unit(table, "requests", "first_token_over", "total_over") == [(1, first, total)]


def test_a_filtered_answer_is_flagged() -> None:
    assert by_unit(counted(shown(1, "a"), came(1, finish="content_filter")), "flagged", "answered") == [(1, 1)]


def test_what_was_sent_again_costs_again() -> None:
    table = counted(
        shown(1, "a"),
        came(1, status=502, prompt_tokens=5),
        shown(2, "a"),
        came(2, retry_count=1, prompt_tokens=5, completion_tokens=3),
    )
    assert by_unit(table, "cost", "prompt_tokens", "output_tokens") == [(13, 5, 3)]


def test_two_raters_of_one_answer_make_one_rated_request_and_the_later_one_counts() -> None:
    table = counted(
        shown(1, "a"), came(1), said(5, "chatcmpl-1", 1.0, 0.0, rater="x"), said(6, "chatcmpl-1", 2.0, 1.0, rater="y")
    )
    assert by_unit(table, "rated", "thumbs_up", "thumbs_down") == [(1, 1, 0)]


def test_thumbs_are_of_the_raters_asked_for_and_scalars_anybodys() -> None:
    events = (
        shown(1, "a"),
        came(1),
        said(5, "chatcmpl-1", 1.0, 0.0, rater_kind="judge"),
        said(6, "chatcmpl-1", 1.0, 2.0, rater_kind="judge", kind="scalar", name="stars"),
        said(7, "chatcmpl-1", 1.0, 4.0, rater_kind="reviewer", kind="scalar", name="stars"),
    )
    assert by_unit(counted(*events), "rated", "scalar_sum", "scalar_count", "scalar_over") == [(0, 6, 2, 1)]
    judged = sums(joined(trial(*events), arms=ARMS, unit_kind="user"), [Column(what="rated")], raters=("judge",))
    assert judged["rated"].tolist() == [1]


def test_a_column_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="No column 'applause'; there are abandoned, answered"):
        sums(joined(empty(), arms=ARMS, unit_kind="user"), [Column(what="applause")])


def test_every_column_that_a_metric_of_an_experiment_may_ask_for_can_be_summed() -> None:
    asked = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}
    assert {*asked} - {metrics.FEEDBACK, "higher", "lower"} <= COLUMNS.keys()
    built_in = {source.value for source in metrics.SOURCES.values()} | {
        source.per for source in metrics.SOURCES.values()
    }
    assert built_in - {""} <= COLUMNS.keys()


def test_a_unit_is_in_the_slice_of_its_first_exposure() -> None:
    events = (
        shown(1, "a", tags={"language": "de", "plan": "free"}),
        shown(2, "a", at=5.0, tags={"language": "en"}),
        shown(3, "b", at=6.0, tags={"language": "en"}),
        shown(4, "c", at=7.0, tags={"plan": "free"}),
        shown(5, "d", at=8.0),
    )
    known = {tags_code(each): dict(each.tags) for each in events}
    whole = replace(trial(*events), tags=known)
    table = joined(whole, arms=ARMS, unit_kind="user")
    place, values = sliced(table, whole, "language")
    order = np.argsort(table.first_at)
    assert [values[each] if each >= 0 else "" for each in place[order]] == ["de", "en", "", ""]
    assert sliced(table, whole, "country")[0].tolist() == [-1] * 4


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
    )
    assert by_unit(table, "thumbs_up", "thumbs_down") == [(0, 0)]
    assert by_unit(table, "scalar_sum", "scalar_count", "copied", "abandoned") == [(0, 0, 1, 0)]


def test_feedback_on_a_conversation_reaches_the_unit_whether_that_is_the_conversation_or_a_user() -> None:
    talk = said(9, "c-1", 5.0, target_kind="conversation")
    as_unit = counted(shown(1, "c-1", unit_kind="conversation"), talk, unit_kind="conversation")
    of_user = counted(shown(1, "a"), came(1, conversation="c-1"), talk)
    assert by_unit(as_unit, "thumbs_up") == by_unit(of_user, "thumbs_up") == [(1,)]


def test_a_unit_whose_first_try_never_arrived_has_asked_once_by_its_first_retry() -> None:
    table = counted(
        shown(1, "ada"),
        shown(2, "ada", at=1.0),
        came(2, retry_count=2),
        came(1, retry_count=1, status=502, error="engine_broke"),
    )
    assert by_unit(table, "requests", "errors", "retries", "answered") == [(1, 1, 1, 1)]


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
    assert (table.unit.size, table.unnamed, table.strange, table.unmatched, table.silent) == (2, 1, 1, 1, 1)


def test_swapping_the_arms_flips_the_difference() -> None:
    events: list[Event] = []
    for number in range(40):
        unit, arm = f"u-{number}", ARMS[number % 2]
        up = arm == "new" or number % 8 == 0
        events += [
            shown(number, unit, arm, at=number),
            came(number),
            said(number, f"chatcmpl-{number}", 60.0, float(up)),
        ]

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
    assert counted().arm.size == 0
    assert counted().contamination == 0.0


def test_rows_are_packed_as_their_columns_are_read_and_codes_never_change() -> None:
    """What is stored must be readable for ever: sizes, codes and the order of the kinds are part of the format."""
    assert {page: LAYOUT[page].itemsize for page in Page} == {1: 67, 2: 58, 3: 50}
    assert code("acme", "user", "u-1") == 7_689_248_421_728_523_587
    assert UNIT_KINDS == ("user", "conversation", "key", "request")
    assert KINDS == ("thumbs", "scalar", "comment", "correction", "preference", "implicit")
    assert RATER_KINDS == ("user", "reviewer", "judge", "system")
    row = trial(shown(1, "a", bucket=9999, propensity=0.125)).exposures[0]
    assert (row["at"], row["bucket"], row["propensity"]) == (START, 9999, 0.125)
    assert row["unit"] == code("", "user", "a")
    assert chunks([came(1, experiment="")]) == []
