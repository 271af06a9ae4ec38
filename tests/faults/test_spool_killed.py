"""Real processes: writers killed with -9, and a kernel that takes only a part of a write."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring.records.ingest import Ingester
from monitoring.records.sql import SqlRecords
from monitoring.records.store import MemoryRecords

WRITER = """
import os, sys
from pathlib import Path
from monitoring.records.events import Inference, encode, uuid7
from monitoring.records.spool import Spool
spool = Spool(Path(sys.argv[1]), "w", rotate_bytes=200_000)
while True:
    events = [Inference(id=uuid7(), endpoint="chat", model="m" * 2000, started_at=1.0, status=200) for _ in range(5)]
    spool.append([encode(e) for e in events])
    os.write(1, b"".join(e.id.encode() + b"\\n" for e in events))
"""


@pytest.mark.slow
def test_everything_appended_before_a_kill_9_is_in_the_store(tmp_path: Path) -> None:
    chance = random.Random(5)
    records = SqlRecords(tmp_path / "db")
    ingester = Ingester(tmp_path / "spool", records)
    appended: list[str] = []
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "spool"], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            appended += [writer.stdout.readline().decode().strip() for _ in range(chance.randint(20, 200))]
            ingester.step()
            writer.send_signal(signal.SIGKILL)
            appended += writer.stdout.read().decode().split()
    ingester.step()
    stored = [each.id for each in records.query(limit=10**9)]
    assert set(appended) - {""} <= set(stored)
    assert len(stored) == len(set(stored))
    assert (ingester.rejected, list((tmp_path / "spool").iterdir())) == (0, [])
    records.close()


LIMITED = """
import resource, sys
from pathlib import Path
from monitoring.records.errors import SpoolFull
from monitoring.records.events import Inference, encode, uuid7
from monitoring.records.spool import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
lines = [encode(Inference(id=uuid7(), endpoint="chat", model="m", started_at=1.0, status=200)) for _ in range(20)]
try:
    Spool(Path(sys.argv[1]), "w").append(lines)
except SpoolFull as full:
    print(full.written)
"""


@pytest.mark.slow
def test_a_kernel_that_really_takes_only_part_of_a_write_is_told_apart(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "spool"], capture_output=True, text=True, check=True, timeout=60
    )
    records = MemoryRecords()
    ingester = Ingester(tmp_path / "spool", records)
    assert ingester.step() == int(done.stdout) > 0
    assert (ingester.rejected, ingester.torn) == (0, 0)
