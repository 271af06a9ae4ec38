"""Real processes: what is started runs, ends, and never outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from training.launchers.errors import CannotLaunch
from training.launchers.local import LocalLauncher
from training.launchers.values import LaunchSpec, Running

pytestmark = pytest.mark.slow
#: Says its pid and that of a child in a session of its own, as torch's elastic agent has them; then waits.
SITS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(os.getpid(), child.pid, os.nice(0), os.environ.get("WORD"), flush=True)
time.sleep(60)
"""


def spec(tmp_path: Path, code: str, **fields: object) -> LaunchSpec:
    (tmp_path / "told.py").write_text(code)
    environment = {"PYTHONPATH": str(tmp_path), "WORD": "two words"}
    return LaunchSpec(name="one", module="told", args=(), folder=tmp_path / "run", environment=environment)


def until(asked: Callable[[], object], seconds: float = 20) -> None:
    """Wait for what another process does; no test here passes by waiting alone."""
    end = time.monotonic() + seconds
    while not asked():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def ended(run: Running) -> int:
    until(lambda: run.poll() is not None)
    code = run.poll()
    assert code is not None
    return code


def said(log: Path) -> list[str]:
    return log.read_text().split() if log.is_file() else []


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(("code", "exit_code"), [("print('hello')", 0), ("raise SystemExit(3)", 3)])
def test_a_run_ends_with_its_code_and_leaves_its_words(code: str, exit_code: int, tmp_path: Path) -> None:
    run = LocalLauncher().start(spec(tmp_path, code))
    assert ended(run) == exit_code
    assert run.logs() == tmp_path / "run" / "log.txt"
    assert ("hello" in run.logs().read_text()) is (exit_code == 0)


def test_a_signal_is_told_as_one(tmp_path: Path) -> None:
    run = LocalLauncher().start(spec(tmp_path, "import os; os.kill(os.getpid(), 9)"))
    assert ended(run) == -signal.SIGKILL


@pytest.mark.parametrize(("asked", "found"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_sleep_while_they_wait_unless_the_run_says_otherwise(
    asked: dict[str, str], found: str, tmp_path: Path
) -> None:
    wanted = spec(tmp_path, "import os; print(os.environ['OMP_WAIT_POLICY'])")
    run = LocalLauncher().start(replace(wanted, environment={**wanted.environment, **asked}))
    assert ended(run) == 0
    assert said(run.logs()) == [found]


def test_a_run_stands_back_has_its_environment_and_is_found_by_its_name_and_its_handle(tmp_path: Path) -> None:
    launcher = LocalLauncher(nice=7)
    run = launcher.start(spec(tmp_path, SITS))
    until(lambda: len(said(run.logs())) >= 5)
    pid, child, nice, *words = said(run.logs())
    assert (nice, words) == ("7", ["two", "words"]) or int(nice) > 7  # we may stand back ourselves
    assert launcher.start(spec(tmp_path, SITS)) is run
    assert launcher.reattach(run.handle) is run
    assert LocalLauncher().reattach(run.handle) is None
    run.stop()
    assert ended(run) == -signal.SIGTERM
    until(lambda: gone(int(pid)) and gone(int(child)))


def test_killing_a_run_ends_all_that_it_started(tmp_path: Path) -> None:
    run = LocalLauncher().start(spec(tmp_path, SITS))
    until(lambda: len(said(run.logs())) >= 5)
    pid, child, *_ = map(int, said(run.logs())[:2])
    run.stop(kill=True)
    assert ended(run) == -signal.SIGKILL
    until(lambda: gone(pid) and gone(child))
    run.stop(kill=True)
    run.stop()


def test_a_worker_that_is_killed_takes_its_runs_along(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(SITS)
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\nfrom training.launchers.local import LocalLauncher\n"
            "from training.launchers.values import LaunchSpec\nhere = Path(sys.argv[1])\n"
            "run = LocalLauncher().start(LaunchSpec(name='one', module='told', args=(), folder=here / 'run', "
            "environment={'PYTHONPATH': str(here), 'WORD': 'two words'}))\ntime.sleep(60)",
            str(tmp_path),
        ],
        cwd=Path(__file__).parents[3],
    )
    log = tmp_path / "run" / "log.txt"
    until(lambda: len(said(log)) >= 5)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    until(lambda: all(gone(int(pid)) for pid in said(log)[:2]))


def test_what_cannot_be_started_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file stands here")
    with pytest.raises(CannotLaunch, match="one cannot be started"):
        LocalLauncher().start(spec(tmp_path, "pass"))
