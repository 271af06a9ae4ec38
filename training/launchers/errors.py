"""What a launcher can fail at.

TrainingError
└── LaunchFailed
    ├── CannotLaunch   the process cannot be started where it should run
    └── LauncherAway   nobody can say what became of it now; it may well run on
"""

from training.errors import TrainingError


class LaunchFailed(TrainingError):
    """A process could not be started, found or stopped."""

    code = "launch_failed"


class CannotLaunch(LaunchFailed):
    """The process cannot be started where it should run."""

    code = "cannot_launch"


class LauncherAway(LaunchFailed):
    """Nobody can say what became of it now; it may well run on, so nobody may start a second one."""

    code = "launcher_away"
    retryable = True
