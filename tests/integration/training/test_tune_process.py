"""`graftline tune` as a process: killed in the middle, it takes its run along, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("optuna")
pytestmark = [pytest.mark.claim, pytest.mark.slow]
RECIPE = """
name: desk
method: sft
data: {train: "tidewell:corrected_fact", held: "tidewell:corrected_fact", rows_max: 16}
optim: {steps: 24, batch: 4, evaluate_every: 6, save_every: 6}
"""
SEARCH = """
search:
  trials: 2
  random: 2
  prune: {off: true}
  space:
    optim.learning_rate: {low: 1e-4, high: 1e-2, log: true}
"""


def start(folder: Path) -> subprocess.Popen[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_")}
    environment = {**outside, "GRAFTLINE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    words = ["tune", "recipe.yaml", "--search", "search.yaml", "--out", "found"]
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", *words],
        cwd=folder, env={**environment, "PYTHONPATH": os.getcwd()}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def below(pid: int) -> list[int]:
    """Every process that this one started, and those that they did."""
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(one for child in children for one in below(child))]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def trials(said: str) -> dict[str, str]:
    """Each trial's own line, without its seconds."""
    return {
        found[1]: found[2] + found[3] for found in re.finditer(r"^trial (\d+): (.*), \d+ s(.*)$", said, re.MULTILINE)
    }


def kind(line: str) -> str:
    """What a line of events tells of; nothing of one that was cut off."""
    try:
        return str(json.loads(line)["event"])
    except ValueError:
        return ""


def told(events: Path, what: str) -> list[str]:
    return [line for line in events.read_text().splitlines() if kind(line) == what]


def test_a_search_that_is_killed_goes_on_and_finds_the_same(tmp_path: Path) -> None:
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE)
        (folder / "search.yaml").write_text(SEARCH)
    whole, _ = start(tmp_path / "whole").communicate(timeout=600)
    assert trials(whole).keys() == {"0", "1"}, whole
    assert all(line.startswith("done") for line in trials(whole).values())

    first = start(tmp_path / "cut")
    second = tmp_path / "cut" / "found" / "trial-001" / "events.jsonl"
    until = time.monotonic() + 600
    try:
        while not (second.is_file() and told(second, "saved")):
            assert first.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        theirs = below(first.pid)
        assert theirs
    finally:
        first.send_signal(signal.SIGKILL)
    said, _ = first.communicate(timeout=60)
    until = time.monotonic() + 30
    while any(runs(pid) for pid in theirs):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert trials(said).keys() == {"0"}
    assert not told(second, "finished"), "it was killed in the middle of a trial"
    tried = (tmp_path / "cut" / "found" / "trial-000" / "events.jsonl").read_bytes()

    again, _ = start(tmp_path / "cut").communicate(timeout=600)
    assert trials(again).keys() == {"1"}, again
    assert trials(said) | trials(again) == trials(whole)
    assert (tmp_path / "cut" / "found" / "trial-000" / "events.jsonl").read_bytes() == tried, "it was not run again"
    assert sorted(each.name for each in (tmp_path / "cut" / "found").glob("trial-*")) == ["trial-000", "trial-001"]
    assert [len(told(second, each)) for each in ("began", "finished")] == [2, 1]
    # What the killed run had done up to its checkpoint is not done again: the next step is the one after it.
    lines = second.read_text().splitlines()
    resumed = "\n".join(lines[[at for at, line in enumerate(lines) if kind(line) == "began"][1] :])
    steps = [json.loads(line)["step"] for line in resumed.splitlines() if kind(line) == "stepped"]
    assert steps[0] in (7, 13, 19)
    assert steps == list(range(steps[0], 25))
    best = [(tmp_path / name / "found" / "best.yaml").read_text() for name in ("whole", "cut")]
    assert best[0] == best[1]
    assert best[0].startswith("# The best of 2 trials: number ")
