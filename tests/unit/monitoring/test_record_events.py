"""Ids that sort by time, and lines that come back as what they were or are refused."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from monitoring.records import errors
from monitoring.records.events import Event, Exposure, Feedback, Inference, decode, encode, from_parts, moment, uuid7
from monitoring.records.periods import bounds, expired, least_id, period_of

EVENT = Inference(
    id="019aa54e-9c80-7000-8000-000000000001", endpoint="chat", model="support", started_at=1763700000.25, status=200
)
EXPOSURE = Exposure(
    id=EVENT.id, at=1763700000.5, experiment="e1", unit="u-1", unit_kind="user", arm="new", propensity=0.5, bucket=9999
)
FEEDBACK = Feedback(id=EVENT.id, at=1763700000.5, target="chatcmpl-1", kind="thumbs", value=1.0)


def test_ids_are_version_7_sort_as_they_were_made_and_tell_when() -> None:
    made = [uuid7() for _ in range(1000)]
    assert made == sorted(set(made))
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in made} == {(7, uuid.RFC_4122)}
    assert abs(moment(made[0]) - datetime.now(UTC).timestamp()) < 60


def test_the_example_of_the_rfc_comes_out() -> None:
    """RFC 9562, A.6."""
    made = from_parts(0x017F22E279B0, 0xCC3, 0x18C4DC0C0C07398F)
    assert made == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert moment(made) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC).timestamp()


def test_a_line_comes_back_as_it_was() -> None:
    whole = replace(
        EVENT, first_byte_ms=1.5, metadata={"a": "→\n"}, request='{"a":"\\n"}', stored=True, captured="full"
    )
    kinds: tuple[Event, ...] = (
        EVENT,
        whole,
        EXPOSURE,
        FEEDBACK,
        replace(FEEDBACK, kind="comment", text="→", value=None),
    )
    for event in kinds:
        line = encode(event)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert decode(line) == event


def test_fields_of_a_later_version_are_ignored_and_missing_ones_have_their_default() -> None:
    document = orjson.loads(encode(EVENT)) | {"novelty": 1}
    del document["attempts"]
    assert decode(orjson.dumps(document)) == EVENT


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "surprise"},
        {"id": str(uuid.UUID(int=5))},
        {"id": "not an id"},
        {"id": "ffffffff-ffff-7000-8000-000000000000"},
        {"status": "200"},
        {"status": -1},
        {"prompt_tokens": 1 << 60},
        {"total_ms": None},
        {"completion_id": "x" * 513},
        {"metadata": {"a": 1}},
        {"captured": "everything"},
        {"model": None},
    ],
    ids=str,
)
def test_a_line_that_no_store_could_hold_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(errors.BadRecord):
        decode(orjson.dumps(orjson.loads(encode(EVENT)) | change))


@pytest.mark.parametrize(
    ("event", "change"),
    [
        (EXPOSURE, {"unit_kind": "household"}),
        (EXPOSURE, {"propensity": 0.0}),
        (EXPOSURE, {"propensity": 1.5}),
        (EXPOSURE, {"bucket": 10_000}),
        (EXPOSURE, {"bucket": -1}),
        (EXPOSURE, {"at": "noon"}),
        (EXPOSURE, {"experiment": "x" * 513}),
        (FEEDBACK, {"kind": "applause"}),
        (FEEDBACK, {"rater_kind": "cat"}),
        (FEEDBACK, {"value": True}),
        (FEEDBACK, {"value": "5"}),
        (FEEDBACK, {"target": "x" * 513}),
        (FEEDBACK, {"text": 7}),
        (FEEDBACK, {"target_kind": "tenant"}),
    ],
    ids=str,
)
def test_an_exposure_or_a_word_that_no_store_could_hold_is_refused(event: Event, change: dict[str, object]) -> None:
    with pytest.raises(errors.BadRecord):
        decode(orjson.dumps(orjson.loads(encode(event)) | change))


def test_a_number_that_is_not_one_is_refused() -> None:
    for bad in (b"NaN", b"Infinity", b"1e999"):
        with pytest.raises(errors.BadRecord):
            decode(encode(FEEDBACK).replace(b'"value":1.0', b'"value":' + bad))


def test_a_nul_is_replaced_in_every_text_of_every_kind() -> None:
    told = decode(encode(replace(FEEDBACK, text="a\0b", other="\0", rater="\0")))
    assert told == replace(FEEDBACK, text="a\ufffdb", other="\ufffd", rater="\ufffd")
    assert decode(encode(replace(EXPOSURE, unit="\0"))) == replace(EXPOSURE, unit="\ufffd")


@pytest.mark.parametrize("line", [b"", b"\n", b"garbage\n", encode(EVENT)[:-5], b"\xff" + encode(EVENT), b"[]"])
def test_garbage_is_refused(line: bytes) -> None:
    with pytest.raises(errors.BadRecord):
        decode(line)


def test_text_that_is_not_unicode_cannot_be_written() -> None:
    with pytest.raises(errors.BadRecord):
        encode(replace(EVENT, model="\ud800"))


def test_months_follow_the_id_in_utc() -> None:
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert period_of(least_id(december)) == "2026-12"
    assert period_of(least_id(december - 0.001)) == "2026-11"
    assert bounds("2026-11")[1] == bounds("2026-12")[0] == december
    assert bounds("2026-12")[1] == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_only_months_wholly_before_have_expired() -> None:
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert expired(["2026-12", "2026-11", "2025-01"], december) == ["2025-01", "2026-11"]
    assert expired(["2026-11"], december - 0.001) == []


def test_every_error_has_a_code_of_its_own() -> None:
    ours = (each for each in errors.RecordsError.__subclasses__() if each.__module__ == errors.__name__)
    tree: list[type[errors.RecordsError]] = [errors.RecordsError, *ours]
    assert len({each.code for each in tree}) == len(tree)
    assert errors.__doc__ is not None
    assert all(each.__name__ in errors.__doc__ for each in tree)
