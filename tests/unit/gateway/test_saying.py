"""Where feedback is said: durable or refused, under pseudonyms, without what identifies a person."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from gateway.capture.compose import keyed
from gateway.errors import BadField, FeedbackNotKept, TooMuchFeedback, UnknownCompletion
from gateway.saying import Mirroring, Saying, about, at_first, relabel
from gateway.words import Speaker, Word
from monitoring.records.disk import Disk
from monitoring.records.events import Exposure, Feedback, Inference, decode, encode, uuid7
from monitoring.records.ingest import Ingester
from monitoring.records.joins import joined
from monitoring.records.periods import period_of
from monitoring.records.spool import Spool, read
from monitoring.records.store import MemoryRecords
from monitoring.telemetry.render import total
from monitoring.telemetry.shared import Metrics

SECRET = b"s"
ACME = Speaker(tenant="acme", key_id="k1")


class Told(Disk):
    """A disk that notes what is asked of it, and may refuse it."""

    def __init__(self, refuses: str = "") -> None:
        self.calls: list[str] = []
        self._refuses = refuses

    def write(self, handle: int, data: bytes) -> int:
        return self._note("write") or super().write(handle, data)

    def sync(self, handle: int) -> None:
        self._note("sync")
        super().sync(handle)

    def _note(self, name: str) -> int:
        self.calls.append(name)
        if name == self._refuses:
            raise OSError(errno.ENOSPC, "full")
        return 0


def house(tmp_path: Path, **values: Any) -> tuple[Saying, Spool]:
    spool = Spool(tmp_path / "spool", "gateway-0-control", disk=values.pop("disk", None))
    return Saying(spool, SECRET, **({"per_rater_per_min": 600} | values)), spool


def on_disk(tmp_path: Path) -> list[Any]:
    files = read(tmp_path / "spool")
    return [decode(line) for file in files for chunk in file.chunks(0, lines_max=99) for line in chunk.lines]


def thumb(target: str = "chatcmpl-1", **values: Any) -> Word:
    given: dict[str, Any] = {"target": target, "kind": "thumbs", "value": 1.0}
    return Word(**(given | values))


def test_what_is_said_is_synced_before_it_returns(tmp_path: Path) -> None:
    disk = Told()
    saying, _ = house(tmp_path, disk=disk)
    said = saying.say([thumb(), thumb("chatcmpl-2", value=-1.0, rater="u-1")], ACME)
    assert disk.calls == ["write", "sync"]
    assert on_disk(tmp_path) == said
    assert [(each.tenant, each.key_id, each.source, each.rater) for each in said] == [
        ("acme", "k1", "api", ""),
        ("acme", "k1", "api", "u-1"),
    ]


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_disk_that_refuses_is_told_and_the_next_try_is_taken(tmp_path: Path, call: str) -> None:
    disk = Told(call)
    metrics = Metrics(tmp_path / "metrics", "w")
    saying, _ = house(tmp_path, disk=disk, metrics=metrics)
    with pytest.raises(FeedbackNotKept) as caught:
        saying.say([thumb()], ACME)
    assert "full" not in str(caught.value)
    disk._refuses = ""
    (said,) = saying.say([thumb()], ACME)
    assert said in on_disk(tmp_path)
    metrics.close()
    assert total(tmp_path / "metrics", "graftline_feedback_refused_total") == 1
    assert total(tmp_path / "metrics", "graftline_feedback_total") == 1


def test_one_bad_word_keeps_the_others_out_too(tmp_path: Path) -> None:
    saying, _ = house(tmp_path)
    with pytest.raises(BadField) as caught:
        saying.say([thumb(), thumb(value=9.0)], ACME, batch=True)
    assert caught.value.param == "items.1.value"
    assert on_disk(tmp_path) == []


def test_a_rater_who_says_too_much_is_told_when_to_come_back_and_others_are_not_held_up(tmp_path: Path) -> None:
    now = [1000.0]
    saying, _ = house(tmp_path, per_rater_per_min=3, clock=lambda: now[0])
    for _ in range(3):
        saying.say([thumb(rater="u-1")], ACME)
    with pytest.raises(TooMuchFeedback) as caught:
        saying.say([thumb(rater="u-1")], ACME)
    assert caught.value.retryable
    assert caught.value.retry_after_s == 61
    saying.say([thumb(rater="u-2")], ACME)
    saying.say([thumb(rater="u-1")], Speaker(tenant="other"))
    saying.say([thumb(rater="u-1", rater_kind="judge")], ACME)
    saying.say([thumb()] * 3, ACME)
    with pytest.raises(TooMuchFeedback):  # without a rater they are the key's
        saying.say([thumb("chatcmpl-9")], ACME)
    with pytest.raises(TooMuchFeedback) as never:
        saying.say([thumb(rater="u-3")] * 4, ACME)
    assert (never.value.retryable, never.value.retry_after_s) == (False, None)
    now[0] += 61
    saying.say([thumb(rater="u-1")], ACME)
    assert len(on_disk(tmp_path)) == 10


def test_nothing_that_identifies_a_person_is_written(tmp_path: Path) -> None:
    saying, _ = house(tmp_path)
    saying.say(
        [
            Word(target="chatcmpl-1", kind="comment", text="call ada@example.com", rater="ada@example.com"),
            Word(target="ada@example.com", target_kind="conversation", kind="comment", text="hm"),
            Word(target="bob@example.com", kind="preference", other="eve@example.com"),
        ],
        ACME,
    )
    written = b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir())
    assert b"example.com" not in written
    comment, talk, odd = on_disk(tmp_path)
    assert comment.text == "call [EMAIL]"
    assert comment.rater == talk.target == keyed("ada@example.com", SECRET) == about("ada@example.com", SECRET)
    assert (odd.target, odd.other) == (keyed("bob@example.com", SECRET), keyed("eve@example.com", SECRET))


def test_ids_of_answers_are_kept_whatever_they_look_like(tmp_path: Path) -> None:
    saying, _ = house(tmp_path)
    names = [f"chatcmpl-{number:032x}1" for number in (0, 4111111111111111, 15551234567, (1 << 128) - 1)]
    names += ["resp_" + "9" * 32, "cmpl-4111111111111111", keyed("x", SECRET)]
    assert [each.target for each in saying.say([thumb(name) for name in names], ACME)] == names


def test_under_a_policy_of_nothing_even_harmless_names_are_hashed_and_still_meet_their_unit(tmp_path: Path) -> None:
    saying, _ = house(tmp_path)
    quiet = Speaker(tenant="acme", capture="off", engineer=False)
    (said,) = saying.say([thumb("c-1", target_kind="conversation", rater="u-1")], quiet)
    assert (said.target, said.rater) == (keyed("c-1", SECRET), keyed("u-1", SECRET))
    shown = Exposure(
        id=uuid7(),
        at=said.at - 1,
        tenant="acme",
        experiment="e1",
        unit=keyed("c-1", SECRET),
        unit_kind="conversation",
        arm="new",
        request_id="r1",
    )
    records = MemoryRecords()
    records.ingest("f", 1, [shown, said])
    assert joined(records.trial("e1"), arms=("old", "new"), unit_kind="conversation").feedback.size == 1


def answer(**values: Any) -> Inference:
    given: dict[str, Any] = {
        "completion_id": "chatcmpl-1",
        "tenant": "acme",
        "user": "u-1",
        "key_id": "k1",
        "stored": True,
        "captured": "full",
    }
    return Inference(id=uuid7(), endpoint="chat", model="m", started_at=1.8e9, status=200, **(given | values))


def test_new_metadata_is_kept_redacted_and_what_it_says_is_feedback_of_the_answers_user(tmp_path: Path) -> None:
    saying, _ = house(tmp_path)
    records = MemoryRecords()
    records.ingest("f", 1, [answer()])
    found = relabel(
        records, saying, ACME, "chatcmpl-1", {"feedback.thumbs": "up", "by": "ada@example.com", "n": "a\0b"}
    )
    assert found.metadata == {"feedback.thumbs": "up", "by": "[EMAIL]", "n": "a\ufffdb"}
    assert records.stored_one("chatcmpl-1", "acme").metadata == found.metadata
    (said,) = on_disk(tmp_path)
    assert (said.target, said.kind, said.value, said.rater, said.source) == ("chatcmpl-1", "thumbs", 1.0, "u-1", "sdk")
    relabel(records, saying, ACME, "chatcmpl-1", {"by": "x"})
    assert [(each.kind, each.value) for each in on_disk(tmp_path)] == [("thumbs", 1.0), ("thumbs", None)]
    with pytest.raises(UnknownCompletion):
        relabel(records, saying, Speaker(tenant="other"), "chatcmpl-1", {})


def test_where_the_feedback_cannot_be_kept_the_metadata_stays_as_it_was(tmp_path: Path) -> None:
    saying, _ = house(tmp_path, disk=Told("sync"))
    records = MemoryRecords()
    records.ingest("f", 1, [answer()])
    with pytest.raises(FeedbackNotKept):
        relabel(records, saying, ACME, "chatcmpl-1", {"feedback.thumbs": "up"})
    assert records.stored_one("chatcmpl-1", "acme").metadata == {}


def test_metadata_that_came_with_the_request_is_mirrored_once_however_often_it_is_read(tmp_path: Path) -> None:
    records = MemoryRecords()
    came = answer(metadata={"feedback.implicit": "regenerated", "feedback.thumbs": "?"}, user=keyed("ada", SECRET))
    spool = Spool(tmp_path / "spool", "gateway-0")
    spool.append([encode(came), encode(answer(completion_id="chatcmpl-2"))])
    spool.close()
    for _ in range(2):
        for file in read(tmp_path / "spool"):
            Mirroring(records).ingest(
                file.name, 0, [decode(line) for c in file.chunks(0, lines_max=9) for line in c.lines]
            )
    intake = Mirroring(records)
    assert Ingester(tmp_path / "spool", intake).step() == 2
    assert intake.offset("nothing") == 0
    (said,) = records.feedback(history=True)
    assert (said.target, said.kind, said.name, said.rater) == ("chatcmpl-1", "implicit", "regenerated", came.user)
    assert (said.tenant, said.source, said.key_id, said.at) == ("acme", "sdk", "k1", came.started_at)
    assert period_of(said.id) == period_of(came.id)
    assert said == at_first(came)[0]
    assert isinstance(decode(encode(said)), Feedback)
