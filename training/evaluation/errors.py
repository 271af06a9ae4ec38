"""Everything an evaluation can refuse or fail at. The tree above is training/errors.py's.

TrainingError
└── EvaluationError          the evaluation could not be made
    ├── BadPlan              the plan is not one, with every problem
    ├── BadRows              a suite's rows cannot be asked
    ├── BadEvaluation        evaluation.json is not one
    ├── EngineAway           the engine answered too few questions for a verdict
    └── JudgeAway            the judge answered too few questions for a verdict
"""

from __future__ import annotations

from collections.abc import Sequence

from training.errors import TrainingError


class EvaluationError(TrainingError):
    """The evaluation could not be made."""

    code = "evaluation_failed"


class BadPlan(EvaluationError):
    """The plan is not one."""

    code = "bad_evaluation_plan"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The evaluation plan cannot be used: " + "; ".join(problems) + ".")
        self.problems = tuple(problems)


class BadSuite(EvaluationError):
    """A suite's rows cannot be asked."""

    code = "bad_evaluation_suite"


class BadEvaluation(EvaluationError):
    """The file is not an evaluation."""

    code = "bad_evaluation"


class EngineAway(EvaluationError):
    """The engine answered too few questions for a verdict."""

    code = "evaluation_engine_away"
    retryable = True


class JudgeAway(EvaluationError):
    """The judge answered too few questions for a verdict."""

    code = "evaluation_judge_away"
    retryable = True
