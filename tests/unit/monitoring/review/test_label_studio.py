"""Label Studio's JSON: out and in again, and files that are not it."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from monitoring.review.errors import BadImport
from monitoring.review.label_studio import FLIPPED, REVIEWER, TASK, Item, config, exported
from monitoring.review.label_studio_import import Brought, imported
from monitoring.review.values import Answer, Kind, Said
from monitoring.review.words import Words
from tests.unit.monitoring.review.desks import NOW, task

LABEL, PAIR = task(1), task(2, 3, 4)
ONE = Words(prompt="user: why?", asked="why?", answer="because <b>")
OTHER = Words(prompt="user: why?", asked="why?", answer="therefore")


def answer(of: str, reviewer: str) -> Answer:
    return Answer(task=of, reviewer=reviewer, at=NOW)


def studio(*results: dict[str, Any], **annotation: Any) -> list[dict[str, Any]]:
    """A file as Label Studio itself writes it."""
    made = {"id": 5, "completed_by": 7, "was_cancelled": False, "lead_time": 4.2, "result": list(results), **annotation}
    return [{"id": 1, "project": 3, "data": {TASK: "t1", FLIPPED: True}, "annotations": [made], "predictions": []}]


def chosen(name: str, *values: str, kind: str = "choices") -> dict[str, Any]:
    return {"id": "x9", "from_name": name, "to_name": "answer", "type": kind, "value": {"choices": list(values)}}


@pytest.mark.parametrize("flipped", [False, True])
def test_what_goes_out_comes_back_as_it_was(flipped: bool) -> None:
    whole = Said(thumbs=1, scalars={"tone": 2.5, "rank": 3.0}, comment="fine – „so“", correction="two\nlines")
    pair = Said(choice="second", comment="shorter")
    items = [
        Item(
            task=LABEL, words=[ONE], said=[(answer(LABEL.id, "ann"), whole), (answer(LABEL.id, "bob"), Said(thumbs=-1))]
        ),
        Item(task=PAIR, words=[ONE, OTHER], flipped=flipped, said=[(answer(PAIR.id, "ann"), pair)]),
        Item(task=PAIR, words=[ONE, OTHER], flipped=flipped, said=[(answer(PAIR.id, "eve"), Said(choice="tie"))]),
    ]
    found = imported(json.dumps(exported(items)).encode())
    assert [(each.task, each.reviewer, each.said) for each in found] == [
        (LABEL.id, "ann", whole),
        (LABEL.id, "bob", Said(thumbs=-1)),
        (PAIR.id, "ann", pair),
        (PAIR.id, "eve", Said(choice="tie")),
    ]
    assert [each.flipped for each in found] == [False, False, flipped, flipped]


def test_a_pair_goes_out_blind_and_on_the_sides_it_says() -> None:
    items = [Item(task=PAIR, words=[ONE, OTHER], flipped=flipped) for flipped in (False, True)]
    straight, crossed = (found["data"] for found in exported(items))
    assert (straight["left"], straight["right"]) == (crossed["right"], crossed["left"]) == (ONE.answer, OTHER.answer)
    assert set(straight) == {TASK, FLIPPED, "kind", "prompt", "left", "right"}


def test_what_label_studio_writes_is_read() -> None:
    text = {"id": "a", "from_name": "comment", "type": "textarea", "value": {"text": ["one", "two"]}}
    rating = {"id": "b", "from_name": "stars", "type": "rating", "value": {"rating": 4}}
    number = {"id": "c", "from_name": "tone", "type": "number", "value": {"number": 0.5}}
    found = imported(json.dumps(studio(chosen("thumbs", "down"), text, rating, number)).encode())
    said = Said(thumbs=-1, scalars={"stars": 4.0, "tone": 0.5}, comment="one\ntwo")
    assert found == [
        Brought(task="t1", reviewer="label-studio-7", said=said, flipped=True, where="task 0, annotation 0")
    ]


def test_pairwise_is_a_choice_and_people_may_be_named_by_their_address() -> None:
    picked = {"id": "a", "from_name": "pw", "to_name": "left,right", "type": "pairwise", "value": {"selected": "left"}}
    (found,) = imported(json.dumps(studio(picked, completed_by={"id": 7, "email": "ann@example.com"})).encode())
    assert (found.reviewer, found.said) == ("ann@example.com", Said(choice="second"))  # the sides were crossed


def test_what_was_cancelled_or_came_from_us_through_another_s_import_is_not_said_again() -> None:
    (out,) = exported([Item(task=LABEL, words=[ONE], said=[(answer(LABEL.id, "ann"), Said(thumbs=1))])])
    del out["annotations"][0][REVIEWER]
    out["annotations"][0]["completed_by"] = 1
    assert imported(json.dumps([out]).encode()) == []
    assert imported(json.dumps(studio(chosen("thumbs", "up"), was_cancelled=True)).encode()) == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("id,thumbs\n1,up\n", "not JSON"),
        ({"data": {}}, "must be a list of tasks; found dict"),
        ([], "1 to 10000 tasks; found 0"),
        ([{"id": 1, "thumbs": "up"}], "JSON-MIN"),
        ([7], "JSON-MIN"),
        ([{"data": {"text": "x"}, "annotations": []}], "must name a task of ours"),
        ([{"data": {TASK: "t1"}, "completions": []}], "`annotations` must be a list"),
        ([{"data": {TASK: "t1"}, "annotations": [{"id": 1}]}], "no list `result`"),
        (studio(chosen("thumbs", "up", "down")), "one of up, down must be chosen"),
        (studio(chosen("thumbs", "sideways")), "one of up, down"),
        (studio(chosen("topic", "up")), "no place for the control 'topic'"),
        (studio(chosen("box", "up", kind="rectanglelabels")), "of type 'rectanglelabels'"),
        (studio({"type": "number", "from_name": "n", "value": {"number": "4"}}), "a number must be a number"),
        (studio({"type": "textarea", "from_name": "comment", "value": {"text": [1]}}), "a list of texts"),
        (studio({"type": "textarea", "from_name": "comment"}), "no `value`"),
        (studio(chosen("thumbs", "up"), completed_by=None), "nobody is named"),
        (studio(chosen("thumbs", "up"), completed_by="a\0b"), "nobody is named"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_reason(file: Any, reason: str) -> None:
    data = file if isinstance(file, str) else json.dumps(file)
    with pytest.raises(BadImport, match="Nothing was imported") as caught:
        imported(data.encode())
    assert reason in caught.value.reasons[0]


def test_everything_wrong_is_said_at_once() -> None:
    wrong = [*studio(chosen("thumbs", "no"), chosen("choice", "no")), 7] * 20
    with pytest.raises(BadImport, match="and 40 more") as caught:
        imported(json.dumps(wrong).encode())
    assert len(caught.value.reasons) == 60


def test_the_labelling_interface_names_what_the_files_hold() -> None:
    for kind, fields in ((Kind.LABEL, {"prompt", "answer"}), (Kind.COMPARE, {"prompt", "left", "right"})):
        drawn = ElementTree.fromstring(config(kind, ["to<ne"]))
        assert {each.attrib["value"].lstrip("$") for each in drawn.iter("Text")} == fields
        assert [each.attrib["name"] for each in drawn.iter("Number")] == (["to<ne"] if kind is Kind.LABEL else [])
