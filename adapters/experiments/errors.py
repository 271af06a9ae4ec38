"""What can go wrong in this room.

ExperimentError
├── BadExperiment        the definition cannot be run; carries every reason
├── ExperimentNotFound   no such experiment or proposal
├── NoSlots              the engines have too few adapter slots to give each arm one of its own
├── ExperimentConflict   another one runs on the alias, or somebody else moved this one first
├── ExperimentOver       it has been stopped or decided: it takes no step any more
├── ProposalOver         the proposal was answered, carried out, withdrawn or has expired
└── ExperimentsUnavailable  the database did not answer; nothing was decided
"""

from __future__ import annotations

from collections.abc import Iterable

from adapters.errors import AdapterError


class ExperimentError(AdapterError):
    """Anything that this room refuses."""

    code = "experiment_error"


class BadExperiment(ExperimentError):
    """`reasons` holds everything that was found in one pass."""

    code = "bad_experiment"

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("The experiment cannot be run:\n" + "\n".join(f"- {reason}" for reason in self.reasons))


class ExperimentNotFound(ExperimentError):
    code = "experiment_not_found"


class NoSlots(ExperimentError):
    code = "no_slots"


class ExperimentConflict(ExperimentError):
    code = "experiment_conflict"


class ExperimentOver(ExperimentError):
    code = "experiment_over"


class ProposalOver(ExperimentError):
    code = "proposal_over"


class ExperimentsUnavailable(ExperimentError):
    code = "experiments_unavailable"
    retryable = True
