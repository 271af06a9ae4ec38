"""Quotas when processes die, race, and find the disk full. Real processes: what they share is memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.access.errors import LedgerInUse
from gateway.access.keys import Key, Limits, mint
from gateway.access.ledger import Ledger

ROOT = Path(__file__).parents[2]
PRELUDE = """
import os, resource, sys, time
from dataclasses import replace
from pathlib import Path
from gateway.access.errors import LedgerUnavailable, OverQuota
from gateway.access.keys import Limits, mint
from gateway.access.ledger import Ledger
path = Path(sys.argv[1])
key = replace(mint(tenant="acme", name="ci", roles=["user"], now=0.0)[1], index=7)
"""

pytestmark = pytest.mark.slow


def limited(limits: Limits, index: int = 7) -> Key:
    return replace(mint(tenant="acme", name="ci", roles=["user"], now=0.0)[1], index=index, limits=limits)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quota"


def start(path: Path, script: str, *args: object) -> subprocess.Popen[str]:
    code = PRELUDE + textwrap.dedent(script)
    command = [sys.executable, "-c", code, str(path), *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    with process:
        out, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    return out.strip()


HOLDER = """
    ledger = Ledger(path, 0, 2)
    key = replace(key, limits=Limits(requests_per_min=50, concurrent=3, token_budget=1000))
    ledger.reserve(key, 100).settle(90)
    held = [ledger.reserve(key, 100) for _ in range(2)]
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker with two requests running."""
    with start(path, HOLDER) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_worker_killed_mid_request_gives_its_places_back_when_it_is_started_again(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    key = limited(Limits(requests_per_min=50, concurrent=3, token_budget=1000))
    with closing(Ledger(path, 1, 2)) as other:
        assert other.remaining(key).budget == 1000 - 90 - 200
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with closing(Ledger(path, 0, 2)) as successor:
            left = other.remaining(key)
            assert left.budget == 910, "what was settled is kept, what was running is not"
            assert left.requests is not None
            assert left.requests >= 47
            for worker in (successor, other, successor):
                worker.reserve(key, 10)


def test_a_place_is_held_by_one_process(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LedgerInUse, match="Place 0"):
        Ledger(path, 0, 2)
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    Ledger(path, 0, 2).close()


def test_the_layout_is_not_changed_under_a_running_gateway(path: Path, holder: subprocess.Popen[str]) -> None:
    before = path.read_bytes()
    with pytest.raises(LedgerInUse, match="layout for 2 workers"):
        Ledger(path, 3, 4)
    assert path.read_bytes() == before
    with closing(Ledger(path, 1, 2)):
        pass  # the failed attempt left no lock behind


def test_a_re_layout_that_was_cut_short_leaves_the_old_file_in_force(path: Path) -> None:
    key = limited(Limits(token_budget=100))
    with closing(Ledger(path, 0, 2)) as ledger:
        ledger.reserve(key, 40).settle(40)
    path.with_name("quota.new").write_bytes(b"half")
    with closing(Ledger(path, 0, 3)) as ledger:
        assert ledger.remaining(key).budget == 60
    assert not path.with_name("quota.new").exists()


RACER = """
    ledger = Ledger(path, int(sys.argv[2]), 4)
    key = replace(key, limits=Limits(requests_per_min=1000, concurrent=3))
    sys.stdin.readline()
    admitted = most = 0
    for _ in range(30_000):
        try:
            hold = ledger.reserve(key, 1)
        except OverQuota:
            continue
        admitted += 1
        hold.settle(1)
    print(admitted)
"""


def test_racing_workers_never_let_in_more_than_the_limit(path: Path) -> None:
    racers = [start(path, RACER, worker) for worker in range(4)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    admitted = sum(int(finish(racer)) for racer in racers)
    # The minute may turn while they race; even then no more than twice the limit passes.
    assert 900 <= admitted <= 2000
    with closing(Ledger(path, 0, 4)) as ledger:
        left = ledger.remaining(limited(Limits(concurrent=3, requests_per_min=2000)))
        assert left.requests is not None
        assert left.requests >= 2000 - admitted, "no refused request is counted"


PLACES = """
    # Each worker writes how many places it holds into a file of its own, after taking and before leaving one.
    import mmap
    board = mmap.mmap(os.open(sys.argv[3], os.O_RDWR), 4)
    worker = int(sys.argv[2])
    ledger = Ledger(path, worker, 4)
    key = replace(key, limits=Limits(concurrent=2))
    sys.stdin.readline()
    most = taken = 0
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            hold = ledger.reserve(key, 1)
        except OverQuota:
            continue
        board[worker] = 1
        most = max(most, sum(board[:]))
        taken += 1
        board[worker] = 0
        hold.settle(0)
    print(most, taken)
"""


def test_racing_workers_never_hold_more_places_than_there_are(path: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    board.write_bytes(bytes(4))
    racers = [start(path, PLACES, worker, board) for worker in range(4)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [tuple(map(int, finish(racer).split())) for racer in racers]
    assert max(most for most, _ in results) <= 2
    assert sum(taken for _, taken in results) > 100


FULL_AT_START = """
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        Ledger(path, 0, 1)
    except LedgerUnavailable as error:
        print(error.code, error.retryable)
"""

FULL_LATER = """
    ledger = Ledger(path, 0, 1)
    key = replace(key, limits=Limits(concurrent=1))
    hold = ledger.reserve(key, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    try:
        ledger.reserve(replace(key, index=1024), 1)
    except LedgerUnavailable as error:
        print(error.code, error.retryable)
    hold.settle(1)
    ledger.reserve(key, 1).settle(1)
    print("serves on")
"""


def test_a_disk_that_is_full_at_the_start_is_said_so_and_leaves_nothing_behind(path: Path) -> None:
    assert finish(start(path, FULL_AT_START)) == "quota_unavailable True"
    assert [left.name for left in path.parent.iterdir()] == ["quota.lock"]
    Ledger(path, 0, 1).close()


def test_a_disk_that_fills_up_stops_new_keys_only(path: Path) -> None:
    assert finish(start(path, FULL_LATER)).splitlines() == ["quota_unavailable True", "serves on"]


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "quota.lock").mkdir()
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="quota"):
        Ledger(tmp_path / "quota", 0, 1)
