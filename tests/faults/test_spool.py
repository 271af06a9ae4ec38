"""Every file call of the spool and of its reader fails once in turn: nothing that was appended is lost or doubled."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from monitoring.records.disk import Disk
from monitoring.records.errors import BadRecord, SpoolBroken, SpoolFull, StoreAway
from monitoring.records.events import Event, Inference, encode, from_parts
from monitoring.records.ingest import REJECTED, Ingester
from monitoring.records.spool import SUFFIX, Spool
from monitoring.records.sql import SqlRecords
from monitoring.records.store import MemoryRecords

CALLS = {name for name in vars(Disk) if not name.startswith("_")}
MADE_AT = 1_795_000_000_000


class FaultyDisk(Disk):
    """A disk whose n-th call fails, with the `fails - 1` after it. `short`: a write takes a half before it fails."""

    def __init__(
        self, fail_at: int, code: int, *, fails: int = 1, short: bool = False, most: int | None = None
    ) -> None:
        self.calls = 0
        self.failed: list[str] = []
        self._fail_at, self._code, self._fails, self._short, self._most = fail_at, code, fails, short, most

    def __getattribute__(self, name: str) -> Any:
        if name in CALLS:
            self.calls += 1
            if self._fail_at <= self.calls < self._fail_at + self._fails:
                self.failed.append(name)
                return self._fail
        return super().__getattribute__(name)

    def write(self, handle: int, data: bytes) -> int:
        return super().write(handle, data[: self._most])

    def _fail(self, *arguments: Any) -> Any:
        if self.failed[-1] == "write" and self._short:
            self._fail_at, self._short = self.calls + 1, False  # half of it now, the error at the next call
            return os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
        if self.failed[-1] == "close":
            os.close(arguments[0])  # Linux frees the number even when close fails
        raise OSError(self._code, os.strerror(self._code))


def event(number: int) -> Inference:
    made_ms = MADE_AT + number
    return Inference(
        id=from_parts(made_ms, 0, number), endpoint="chat", model="m" * 50, started_at=made_ms / 1000, status=200
    )


def batches() -> Iterator[list[Inference]]:
    for start in range(0, 24, 3):
        yield [event(start + i) for i in range(3)]


def insist(spool: Spool, events: Sequence[Inference], *, sync: bool) -> int:
    """Append as the outbox does: what was not taken is offered again. Returns how often the disk refused."""
    lines, refused = [encode(e) for e in events], 0
    while lines:
        try:
            spool.append(lines, sync=sync)
        except SpoolFull as full:
            lines, refused = lines[full.written :], refused + 1
            assert refused < 5
        else:
            lines = []
    return refused


def left_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(SUFFIX)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize(
    ("short", "fails"),
    [(False, 1), (True, 1), (True, 2)],
    ids=["at once", "after a short write", "and the cut fails too"],
)
@pytest.mark.slow
def test_any_one_failing_call_of_the_writer_loses_nothing(tmp_path: Path, code: int, short: bool, fails: int) -> None:
    failed: set[str] = set()
    for fail_at in range(1, 1000):
        folder = tmp_path / str(fail_at)
        disk = FaultyDisk(fail_at, code, short=short, fails=fails)
        spool = Spool(folder, "w", rotate_bytes=700, disk=disk)
        records = MemoryRecords()
        ingester = Ingester(folder, records)
        for number, events in enumerate(batches()):
            insist(spool, events, sync=number % 2 == 0)
            ingester.step()
        try:
            spool.close()
        except OSError:
            assert disk.failed[-1] == "close"
        ingester.step()
        assert records.query() == [e for events in batches() for e in events], (disk.failed, fail_at)
        assert ingester.rejected == 0
        assert not left_in(folder)
        if not disk.failed:
            break
        failed.update(disk.failed)
    assert failed >= {"make_folder", "create", "lock", "stat", "write", "sync", "sync_folder", "close"}
    assert ("truncate" in failed) == (fails == 2)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.slow
def test_any_one_failing_call_of_the_ingester_loses_and_doubles_nothing(tmp_path: Path, code: int) -> None:
    failed: set[str] = set()
    for fail_at in range(1, 1000):
        folder = tmp_path / str(fail_at)
        spool = Spool(folder, "w", rotate_bytes=700)
        disk = FaultyDisk(fail_at, code)
        records = MemoryRecords()
        ingester = Ingester(folder, records, batch=2, disk=disk)
        broken = 0
        for events in batches():
            spool.append([*(encode(e) for e in events), b"garbage\n"])
            broken += breaks(ingester)
        spool.close()
        broken += breaks(ingester)
        broken += breaks(ingester)
        assert records.query() == [e for events in batches() for e in events], (disk.failed, fail_at)
        assert ingester.rejected == 8
        assert broken + ingester.unkept <= 1
        assert not left_in(folder)
        if not disk.failed:
            break
        failed.update(disk.failed)
    assert failed >= {"list", "open", "read", "lock", "stat", "unlink", "close", "replace", "write", "make_folder"}


def breaks(ingester: Ingester) -> bool:
    """Take a step; whether it reported a broken disk."""
    try:
        ingester.step()
    except SpoolBroken:
        return True
    return False


def test_writes_of_seven_bytes_at_a_time_make_whole_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w", disk=FaultyDisk(0, 0, most=7))
    events = [event(i) for i in range(3)]
    spool.append([encode(e) for e in events])
    records = MemoryRecords()
    assert Ingester(tmp_path, records).step() == 3
    assert records.query() == events


def test_a_full_disk_says_how_many_lines_are_in_and_leaves_no_half_line(tmp_path: Path) -> None:
    lines = [encode(event(i)) for i in range(4)]
    spool = Spool(tmp_path, "w", disk=FaultyDisk(5, errno.ENOSPC, short=True))  # folder, create, lock, stat, write
    with pytest.raises(SpoolFull, match="took 2 of 4 lines") as caught:
        spool.append(lines)
    assert caught.value.written == 2
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == b"".join(lines[:2])


def test_after_a_failed_sync_none_is_promised_and_another_file_is_used(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w", disk=FaultyDisk(6, errno.EIO))
    with pytest.raises(SpoolFull, match="took 0 of 1 lines") as caught:
        spool.append([encode(event(0))], sync=True)
    assert caught.value.written == 0
    spool.append([encode(event(0))], sync=True)
    assert len(left_in(tmp_path)) == 2
    records = MemoryRecords()
    Ingester(tmp_path, records).step()
    assert records.count() == 1


def test_a_file_cut_at_any_byte_loses_the_cut_line_only(tmp_path: Path) -> None:
    lines = [encode(event(i)) for i in range(3)]
    whole = b"".join(lines)
    for size in range(len(whole) + 1):
        (tmp_path / "w.spool").write_bytes(whole[:size])
        records = MemoryRecords()
        ingester = Ingester(tmp_path, records)
        complete = whole[:size].count(b"\n")
        assert ingester.step() == complete
        assert ingester.torn == (not whole[:size].endswith(b"\n") and size > 0)
        assert (records.count(), ingester.rejected, left_in(tmp_path)) == (complete, 0, [])


def test_an_ingester_that_dies_between_commit_and_removal_doubles_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w")
    spool.append([encode(event(i)) for i in range(5)])
    spool.close()
    records = SqlRecords(tmp_path / "db")
    dying = Ingester(tmp_path, records, disk=FaultyDisk(8, errno.EIO))
    with pytest.raises(SpoolBroken):
        dying.step()
    assert len(left_in(tmp_path)) == 1
    assert Ingester(tmp_path, records).step() == 0
    assert (records.count(), left_in(tmp_path)) == (5, [])
    records.close()


class FlakyStore(MemoryRecords):
    """Away for its first calls, and never able to hold one record."""

    def __init__(self, away: int = 0, poison: str = "") -> None:
        super().__init__()
        self._away, self._poison = away, poison

    def ingest(self, file: str, offset: int, events: Sequence[Event]) -> None:
        if self._away:
            self._away -= 1
            raise StoreAway("away")
        if any(e.id == self._poison for e in events):
            raise BadRecord("poison")
        super().ingest(file, offset, events)


def test_a_database_that_is_away_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w")
    spool.append([encode(event(i)) for i in range(3)] + [b"garbage\n"])
    records = FlakyStore(away=2)
    ingester = Ingester(tmp_path, records)
    for _ in range(2):
        with pytest.raises(StoreAway):
            ingester.step()
    assert ingester.step() == 3
    assert (records.count(), ingester.rejected) == (3, 1)
    assert len(list((tmp_path / REJECTED).iterdir())) == 1


def test_one_record_that_the_database_can_never_hold_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    lines = [encode(event(i)) for i in range(5)]
    spool = Spool(tmp_path, "w")
    spool.append(lines)
    spool.close()
    records = FlakyStore(poison=event(2).id)
    ingester = Ingester(tmp_path, records)
    assert ingester.step() == 4
    assert (records.count(), ingester.rejected, left_in(tmp_path)) == (4, 1, [])
    (kept,) = (tmp_path / REJECTED).iterdir()
    assert kept.read_bytes() == lines[2]


def test_a_reader_that_removes_the_file_before_it_is_locked_costs_only_that_file(tmp_path: Path) -> None:
    class Hasty(Disk):
        hurry = True

        def create(self, path: Path) -> int:
            handle = super().create(path)
            if self.hurry:
                self.hurry = False
                Ingester(tmp_path, MemoryRecords()).step()
                assert not path.exists()
            return handle

    spool = Spool(tmp_path, "w", disk=Hasty())
    spool.append([encode(event(0))])
    records = MemoryRecords()
    assert Ingester(tmp_path, records).step() == 1
