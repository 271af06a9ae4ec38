"""What is started, what runs, and who can start it. Light: everything a job runner needs to know of launchers.

A run is a process that writes into its own folder and goes on where it stood when it is started again. So a launcher
promises little: it starts the process, says whether it still runs, stops it, and finds it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from training.launchers.section import Launch

LOG: Final = "log.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One process to run: `python -m MODULE ARGS`, by `accelerate launch` where `launch` asks for several."""

    #: Names the run where it runs, such as `ftjob-…` or `ftjob-…-evaluate`. One name runs once at a time: starting it
    #: while it still runs somewhere gives that run back.
    name: str
    module: str
    args: tuple[str, ...]
    #: The run's folder. It must have the same path wherever the launcher runs things (on Ray: shared storage).
    folder: Path
    #: How many processes share the work, and how; from the recipe.
    launch: Launch = field(default_factory=Launch)
    #: On top of the environment that the launcher gives.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Which start this is; tells two runs of one name apart where a launcher keeps what ended.
    attempt: int = 1

    @property
    def log(self) -> Path:
        """What the process prints, standard output and error alike."""
        return self.folder / LOG


class Running(Protocol):
    """A run that was started. Methods may block for a while (a signal, an HTTP request): call them in a thread."""

    @property
    def handle(self) -> str:
        """What `Launcher.reattach` takes, in this process or in another one."""

    def poll(self) -> int | None:
        """The exit code, -N where signal N ended it; None while it runs. Raises LauncherAway."""

    def stop(self, kill: bool = False) -> None:
        """Ask it to end (SIGTERM), or end it (SIGKILL) with all that it started. Returns before it has ended.

        Stopping what has ended does nothing. Raises LauncherAway.
        """

    def logs(self) -> Path:
        """A file with what it printed so far. Raises LauncherAway."""


class Launcher(Protocol):
    """Where processes run."""

    def start(self, spec: LaunchSpec) -> Running:
        """Start it; or, where a run of that name still goes on, that one. Raises CannotLaunch, LauncherAway."""

    def reattach(self, handle: str) -> Running | None:
        """A run that was started before, maybe by another process; None where it is gone and must be started again.

        Raises LauncherAway where nobody can say so now: ask again later, and do not start a second one.
        """


def training(
    *,
    name: str,
    recipe: Path,
    folder: Path,
    launch: Launch,
    base: Path | None = None,
    start: Path | None = None,
    environment: Mapping[str, str] | None = None,
    attempt: int = 1,
) -> LaunchSpec:
    """The process that trains a recipe into a folder."""
    args = [str(recipe.absolute()), "--out", str(folder.absolute())]
    args += ["--base", str(base.absolute())] if base is not None else []
    args += ["--start", str(start.absolute())] if start is not None else []
    return LaunchSpec(
        name=name,
        module="training.recipes",
        args=tuple(args),
        folder=folder.absolute(),
        launch=launch,
        environment=dict(environment or {}),
        attempt=attempt,
    )
