"""What can go wrong with datasets.

DataError
├── BadRules        a rule is unknown or out of bounds; every problem is named
├── BadFile         lines of a file cannot become rows; each is named by number
├── BadTemplate     the folder has no tokenizer, or one without a chat template
├── NothingLeft     no row is left to train on, or one class only where two are needed
├── DatasetNotFound there is no such dataset
├── DatasetDamaged  rows or manifest are not what the dataset's name says
├── CannotWrite     the disk that datasets go to is full, or cannot be written; no dataset was left half done
├── TeacherAway     the teacher endpoint does not answer
└── NoExtra         this installation lacks the `training` extra
"""

from __future__ import annotations

from collections.abc import Sequence

from training.errors import TrainingError

_LINES_SHOWN = 20


class DataError(TrainingError):
    """A dataset could not be compiled, imported or read."""

    code = "dataset_failed"


class BadRules(DataError):
    """A rule is unknown or out of bounds; every problem is named."""

    code = "bad_dataset_rules"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The rules of the dataset cannot be used:\n" + "\n".join(f"  {each}" for each in problems))
        self.problems = tuple(problems)


class BadFile(DataError):
    """Lines of a file cannot become rows; each is named by number."""

    code = "bad_training_file"

    def __init__(self, name: str, problems: Sequence[tuple[int, str]], *, found: int | None = None) -> None:
        shown = [f"  line {line}: {why}" if line else f"  {why}" for line, why in problems[:_LINES_SHOWN]]
        found = len(problems) if found is None else found
        if found > len(shown):
            shown.append(f"  … and {found - len(shown)} more")
        super().__init__("\n".join([f"{name} has {found} problem{'s' if found != 1 else ''}:", *shown]))
        self.problems = tuple(problems)


class BadTemplate(DataError):
    """The folder has no tokenizer, or one without a chat template."""

    code = "bad_chat_template"


class NothingLeft(DataError):
    """No row is left to train on, or one class only where two are needed. The report says where the others went."""

    code = "nothing_to_learn"

    def __init__(self, why: str, report: str) -> None:
        super().__init__(f"{why}\n{report}")
        self.report = report


class DatasetNotFound(DataError):
    """There is no such dataset."""

    code = "dataset_not_found"


class DatasetDamaged(DataError):
    """Rows or manifest are not what the dataset's name says."""

    code = "dataset_damaged"


class CannotWrite(DataError):
    """The disk that datasets go to is full, or cannot be written; no dataset was left half done."""

    code = "dataset_not_written"
    retryable = True

    def __init__(self, root: object, problem: Exception) -> None:
        super().__init__(
            f"The dataset could not be written under {root}: {problem}. Nothing of it is left there. A build needs "
            "about three times the room of the text that it reads; free some and build again."
        )


class TeacherAway(DataError):
    """The teacher endpoint does not answer. What it said so far is kept."""

    code = "teacher_away"
    retryable = True

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"The teacher at {url} did not answer ({why}). What it said so far is kept: run the same command again."
        )


class NoExtra(DataError):
    """This installation lacks the `training` extra."""

    code = "no_training_extra"

    def __init__(self, module: str) -> None:
        super().__init__(f"Datasets need {module}, which is not installed here. Install graftline[training].")
