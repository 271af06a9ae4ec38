"""What the gate can fail at; to decide against a version is no error.

TrainingError
└── GateError
    ├── BadVerdict      a file holds no verdict or probes of ours
    └── CannotProbe     an engine did not answer what the gate asks of it
"""

from typing import ClassVar

from training.errors import TrainingError


class GateError(TrainingError):
    """The gate could not do its work."""

    code = "gate_error"


class BadVerdict(GateError):
    """A file holds no verdict or probes of ours."""

    code = "bad_verdict"


class CannotProbe(GateError):
    """An engine did not answer what the gate asks of it."""

    code = "cannot_probe"
    retryable: ClassVar[bool] = True
