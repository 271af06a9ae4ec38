"""Runs on this machine: each a process of its own session, under the keeper, which lets nothing of it outlive us.

A worker that is killed takes its runs along, however many processes they are; the job is claimed again, started again,
and goes on from its last whole checkpoint. Light.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from training.launchers.command import argv, told
from training.launchers.errors import CannotLaunch
from training.launchers.values import LaunchSpec
from training.share import CALM, yield_to_others

KEEPER: Final = Path(__file__).with_name("keeper.py")
#: How far a training stands back for what serves on the same machine.
NICE: Final = 15


class LocalRun:
    """One process, its keeper, and the line that keeps both alive."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket, log: Path) -> None:
        self._process = process
        self._line = line
        self._log = log

    @property
    def handle(self) -> str:
        """Names it in this process; for any other it is gone, since it died with its worker."""
        return f"local:{os.getpid()}:{self._process.pid}"

    def poll(self) -> int | None:
        """The exit code, -N where signal N ended it; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        self._line.close()
        return code if code <= 128 else 128 - code  # the keeper says 128 + N for a signal

    def stop(self, kill: bool = False) -> None:
        """Ask it to end, or end it with all that it started."""
        if kill:
            self._line.close()
        elif self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def logs(self) -> Path:
        """What it printed so far."""
        return self._log


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLauncher:
    """Starts processes beside its own."""

    python: str = sys.executable
    nice: int = NICE
    _runs: dict[str, LocalRun] = field(default_factory=dict, init=False)

    def start(self, spec: LaunchSpec) -> LocalRun:
        """Start it, or give back the run of that name that still goes on. Raises CannotLaunch."""
        known = self._runs.get(spec.name)
        if known is not None and known.poll() is None:
            return known
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                spec.folder.mkdir(parents=True, exist_ok=True)
                with spec.log.open("ab") as log:
                    process = subprocess.Popen(
                        [
                            *(sys.executable, "-I", "-S", str(KEEPER), str(theirs.fileno())),
                            *told({**CALM, **spec.environment}, self.nice),
                            *argv(spec, python=self.python),
                        ],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=(theirs.fileno(),),
                        start_new_session=True,
                    )
            except OSError as error:
                ours.close()
                raise CannotLaunch(f"{spec.name} cannot be started in {spec.folder}: {error}") from error
        yield_to_others(process.pid, self.nice)  # to the engine beside it: sessions share first, their processes then
        run = LocalRun(process, ours, spec.log)
        self._runs[spec.name] = run
        return run

    def reattach(self, handle: str) -> LocalRun | None:
        """The run, where this very process started it; any other died with its worker."""
        return next((run for run in self._runs.values() if run.handle == handle), None)
