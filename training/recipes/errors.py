"""Everything a recipe can be refused for, or fail at.

TrainingError
└── RecipeFailed
    ├── BadRecipe      the YAML file says what no recipe can say; every problem is listed
    ├── BadRows        the data is not what the method learns from; bad rows are named by number
    ├── BadTemplate    the chat template lacks what the recipe asks of it
    ├── NotFinite      the loss or its gradient is no number any more
    ├── OutOfMemory    the machine has less memory than the recipe takes
    ├── DiskFull       a checkpoint could not be written; the one before it is whole
    ├── RunTaken       another process trains in the run's folder
    ├── TooStale       the adapter to go on from is too many generations away from the base
    └── CannotMerge    these adapters have no sum of that kind
"""

from collections.abc import Sequence
from typing import ClassVar

from training.errors import TrainingError

_SHOWN_MAX = 20


class RecipeFailed(TrainingError):
    """A recipe could not be run to its end."""

    code = "recipe_failed"


class BadRecipe(RecipeFailed):
    """The recipe says what no recipe can say."""

    code = "bad_recipe"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(_listed("The recipe cannot be used", problems))
        self.problems = tuple(problems)


class BadRows(RecipeFailed):
    """The data is not what the method learns from."""

    code = "bad_rows"

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(_listed(f"{source} cannot be trained on", problems))
        self.problems = tuple(problems)


class BadTemplate(RecipeFailed):
    """The chat template lacks what the recipe asks of it."""

    code = "bad_template"


class NotFinite(RecipeFailed):
    """The loss or its gradient is no number any more."""

    code = "not_finite"

    def __init__(self, step: int, what: str, diagnosis: str) -> None:
        super().__init__(f"At step {step} the {what} is no finite number; training stopped. {diagnosis}")
        self.step = step
        self.diagnosis = diagnosis


class OutOfMemory(RecipeFailed):
    """The machine has less memory than the recipe takes."""

    code = "out_of_memory"


class DiskFull(RecipeFailed):
    """A checkpoint could not be written."""

    code = "disk_full"
    retryable: ClassVar[bool] = True


class RunTaken(RecipeFailed):
    """Another process trains in the run's folder."""

    code = "run_taken"
    retryable: ClassVar[bool] = True


class TooStale(RecipeFailed):
    """The adapter to go on from is too many generations away from the base."""

    code = "too_stale"


class CannotMerge(RecipeFailed):
    """These adapters have no sum of that kind."""

    code = "cannot_merge"


def _listed(title: str, problems: Sequence[str]) -> str:
    shown = [f"- {problem}" for problem in problems[:_SHOWN_MAX]]
    more = len(problems) - len(shown)
    return "\n".join([f"{title} ({len(problems)} found):", *shown, *([f"- and {more} more"] if more else [])])
