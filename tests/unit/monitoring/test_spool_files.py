"""Which files a spool writes, when it takes another, and what a reader sees meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitoring.records.disk import Disk
from monitoring.records.events import Inference, encode, from_parts
from monitoring.records.ingest import REJECTED, Ingester
from monitoring.records.spool import Spool
from monitoring.records.store import MemoryRecords

MADE_MS = 1_795_000_000_000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def line(number: int) -> bytes:
    return encode(
        Inference(id=from_parts(MADE_MS, 0, number), endpoint="chat", model="m", started_at=MADE_MS / 1000, status=200)
    )


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_nothing_is_written_before_the_first_line(tmp_path: Path) -> None:
    Spool(tmp_path / "spool", "w")
    assert names(tmp_path) == []


def test_what_is_being_written_is_read_while_its_writer_lives_and_the_file_stays(tmp_path: Path) -> None:
    spool, records = Spool(tmp_path, "w"), MemoryRecords()
    ingester = Ingester(tmp_path, records)
    for number in range(3):
        spool.append([line(number)])
        assert ingester.step() == 1
    assert ingester.step() == 0
    (file,) = names(tmp_path)
    assert records.offset(file) == 3 * len(line(0))
    spool.close()
    assert ingester.step() == 0
    assert names(tmp_path) == []
    assert records.offset(file) == 0


def test_a_full_or_old_file_is_followed_by_another_and_then_removed(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, "w", rotate_bytes=len(line(0)), rotate_s=60, clock=clock)
    ingester = Ingester(tmp_path, MemoryRecords())
    spool.append([line(0)])
    first = names(tmp_path)
    spool.append([line(1)])
    assert len(names(tmp_path)) == 2
    assert ingester.step() == 2
    assert len(names(tmp_path)) == 1
    assert names(tmp_path) != first
    old = Spool(tmp_path / "old", "w", rotate_s=60, clock=clock)
    old.append([line(0)])
    clock.now = 59.9
    old.append([line(1)])
    assert len(names(tmp_path / "old")) == 1
    clock.now = 60.0
    old.append([line(2)])
    assert len(names(tmp_path / "old")) == 2


def test_a_spool_that_was_closed_opens_another_file(tmp_path: Path) -> None:
    spool, records = Spool(tmp_path, "w"), MemoryRecords()
    spool.append([line(0)])
    spool.close()
    spool.close()
    spool.append([line(1)], sync=True)
    assert len(names(tmp_path)) == 2
    assert Ingester(tmp_path, records).step() == 2


def test_processes_do_not_share_files(tmp_path: Path) -> None:
    for _ in range(2):
        Spool(tmp_path, "w").append([line(0)])
    assert len(names(tmp_path)) == 2


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "w")
    spool.append([line(0)])
    (path,) = (tmp_path / "spool").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("bad", [b"", b"no newline", b"two\nlines\n", b"\n\n"])
def test_half_lines_and_two_lines_in_one_are_refused_before_anything_is_written(tmp_path: Path, bad: bytes) -> None:
    with pytest.raises(ValueError, match="one newline"):
        Spool(tmp_path, "w").append([line(0), bad])
    assert names(tmp_path) == []


def test_an_empty_append_is_nothing(tmp_path: Path) -> None:
    Spool(tmp_path, "w").append([])
    assert Ingester(tmp_path, MemoryRecords()).step() == 0


def test_lines_larger_than_a_read_are_whole(tmp_path: Path) -> None:
    huge = encode(
        Inference(
            id=from_parts(MADE_MS, 0, 1), endpoint="chat", model="m" * (5 << 20), started_at=MADE_MS / 1000, status=200
        )
    )
    spool, records = Spool(tmp_path, "w"), MemoryRecords()
    spool.append([line(0), huge, line(2)])
    assert Ingester(tmp_path, records).step() == 3
    assert [len(each.model) for each in records.query()] == [1, 5 << 20, 1]


def test_a_corrupt_line_is_set_aside_counted_and_blocks_nothing(tmp_path: Path) -> None:
    spool, records = Spool(tmp_path, "w"), MemoryRecords()
    spool.append([line(0), b"garbage \r \xff\n", line(1), b"\n"])
    ingester = Ingester(tmp_path, records)
    assert ingester.step() == 2
    assert ingester.rejected == 2
    (kept,) = (tmp_path / REJECTED).iterdir()
    assert kept.read_bytes() == b"garbage \r \xff\n\n"


def test_a_folder_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    assert Ingester(tmp_path / "none", MemoryRecords()).step() == 0


def test_what_a_writer_appends_just_before_it_goes_is_not_removed_with_its_file(tmp_path: Path) -> None:
    spool, records = Spool(tmp_path, "w"), MemoryRecords()

    class Parting(Disk):
        last = True

        def lock(self, handle: int) -> None:
            if self.last:
                self.last = False
                spool.append([line(1)])
                spool.close()
            super().lock(handle)

    spool.append([line(0)])
    ingester = Ingester(tmp_path, records, disk=Parting())
    assert ingester.step() == 1
    assert ingester.step() == 1
    assert names(tmp_path) == []


def test_a_file_that_another_ingester_finishes_first_is_no_trouble(tmp_path: Path) -> None:
    records = MemoryRecords()

    class Slow(Disk):
        def open(self, path: Path) -> int:
            Ingester(tmp_path, records).step()
            return super().open(path)

    spool = Spool(tmp_path, "w")
    spool.append([line(0)])
    spool.close()
    assert Ingester(tmp_path, records, disk=Slow()).step() == 0
    assert records.count() == 1
    assert names(tmp_path) == []


def test_an_ingester_that_starts_anew_goes_on_where_the_store_says(tmp_path: Path) -> None:
    spool, records = Spool(tmp_path, "w"), MemoryRecords()
    spool.append([line(0), line(1)])
    assert Ingester(tmp_path, records).step() == 2
    spool.append([line(2)])
    assert Ingester(tmp_path, records).step() == 1
