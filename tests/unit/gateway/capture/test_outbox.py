"""No request waits for a record, and none is lost without being counted."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gateway.access.keys import mint
from gateway.capture.draft import Draft
from gateway.capture.meters import Meters
from gateway.capture.outbox import Outbox
from monitoring.records.disk import Disk
from monitoring.records.ingest import Ingester
from monitoring.records.spool import Spool
from monitoring.records.store import MemoryRecords
from monitoring.telemetry.render import render
from monitoring.telemetry.shared import Metrics
from tests.unit.gateway.capture.test_compose import draft as composed
from tests.unit.gateway.capture.test_compose import trialled

_, KEY = mint(tenant="acme", name="t", roles=["user"], now=0.0)


class Small(Disk):
    """A disk with so many bytes left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, handle: int, data: bytes) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "full")
        written = super().write(handle, data[: self.left])
        self.left -= written
        return written


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path / "metrics", "t")


def outbox(
    folder: Path, metrics: Metrics, *, left: int = 1 << 30, records_max: int = 10, bytes_max: int = 1 << 20
) -> Outbox:
    spool = Spool(folder / "spool", "t", disk=Small(left))
    return Outbox(spool, Meters(metrics), base_digest="b", records_max=records_max, flush_s=0.001, bytes_max=bytes_max)


def draft(name: str, raw: bytes = b"") -> Draft:
    made = Draft("chat", name, "abc")
    made.raw, made.status, made.key = raw, 200, KEY
    return made


def stored(folder: Path) -> list[str]:
    store = MemoryRecords()
    Ingester(folder / "spool", store).step()
    return [record.request_id for record in store.query()]


def test_a_request_without_a_key_is_counted_and_not_written(tmp_path: Path, metrics: Metrics) -> None:
    box = outbox(tmp_path, metrics)
    stranger = draft("r")
    stranger.key = None
    box.put(stranger)
    assert box.flush()
    assert stored(tmp_path) == []
    assert b"graftline_requests_total{" in render(tmp_path / "metrics")


def test_what_is_put_is_written_in_order(tmp_path: Path, metrics: Metrics) -> None:
    box = outbox(tmp_path, metrics)
    for name in "abc":
        box.put(draft(name))
    assert box.flush()
    assert box.waiting == 0
    assert stored(tmp_path) == ["a", "b", "c"]


def test_that_an_arm_was_met_is_written_before_the_answer_is_there(tmp_path: Path, metrics: Metrics) -> None:
    box = outbox(tmp_path, metrics)
    made = trialled(composed())
    box.expose(made)
    assert box.flush()
    store = MemoryRecords()
    ingester = Ingester(tmp_path / "spool", store)
    ingester.step()
    assert [each.arm for each in store.exposures("e1")] == ["new"]
    assert store.query() == []
    box.put(made)
    assert box.flush()
    ingester.step()
    (exposed,), (record,) = store.exposures("e1"), store.query()
    assert exposed.request_id == record.request_id
    assert (record.experiment, record.arm) == ("e1", "new")


def test_an_exposure_beyond_the_bound_is_counted_as_lost(tmp_path: Path, metrics: Metrics) -> None:
    box = outbox(tmp_path, metrics, records_max=1)
    for _ in range(3):
        box.expose(trialled(composed()))
    assert (box.waiting, box.dropped) == (1, 2)


def test_while_the_disk_is_full_records_wait_and_the_rest_is_counted(tmp_path: Path, metrics: Metrics) -> None:
    disk = Small(0)
    spool = Spool(tmp_path / "spool", "t", disk=disk)
    box = Outbox(spool, Meters(metrics), base_digest="b", records_max=3, flush_s=1)
    for name in "abcde":
        box.put(draft(name))
        assert not box.flush()
    assert (box.refused, box.dropped, box.waiting) == (True, 2, 3)
    assert b"graftline_records_dropped_total 2" in render(tmp_path / "metrics")
    disk.left = 1 << 20
    assert box.flush()
    assert not box.refused
    assert stored(tmp_path) == ["a", "b", "c"]
    box.put(draft("f"))
    assert box.flush()
    assert stored(tmp_path) == ["a", "b", "c", "f"]


def test_a_disk_that_fills_within_a_batch_takes_each_record_once(tmp_path: Path, metrics: Metrics) -> None:
    disk = Small(1500)
    box = Outbox(Spool(tmp_path / "spool", "t", disk=disk), Meters(metrics), base_digest="b", records_max=10, flush_s=1)
    for name in "abcdef":
        box.put(draft(name))
    assert not box.flush()
    assert 0 < box.waiting < 6
    disk.left = 1 << 20
    assert box.flush()
    assert stored(tmp_path) == list("abcdef")


def test_large_bodies_are_bounded_by_their_bytes(tmp_path: Path, metrics: Metrics) -> None:
    box = outbox(tmp_path, metrics, bytes_max=2500)
    for name in "abc":
        box.put(draft(name, b"x" * 1000))
    assert (box.waiting, box.dropped) == (2, 1)
    assert box.flush()
    box.put(draft("d", b"x" * 1000))
    assert box.dropped == 1
    assert box.flush()
    assert stored(tmp_path) == ["a", "b", "d"]


def test_what_the_disk_refused_to_the_end_is_counted(tmp_path: Path, metrics: Metrics) -> None:
    box = outbox(tmp_path, metrics, left=0)
    box.put(draft("a"))
    box.put(draft("b"))
    box.close()
    assert box.dropped == 2
    assert b"graftline_records_dropped_total 2" in render(tmp_path / "metrics")


def test_the_thread_writes_by_itself_and_outlives_a_record_that_cannot_be_composed(
    tmp_path: Path, metrics: Metrics
) -> None:
    box = outbox(tmp_path, metrics)
    broken = draft("broken")
    broken.endpoint = "nothing"  # type: ignore[assignment]
    box.put(broken)
    box.put(draft("a"))
    box.start()
    box.close()
    assert stored(tmp_path) == ["a"]
    assert box.dropped == 1
