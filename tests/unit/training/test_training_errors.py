"""Every training error has a stable code."""

from training import errors
from training.errors import TrainingError


def test_codes_are_distinct_and_drawn_in_the_docstring() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TrainingError)]
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds)
    assert all(isinstance(kind.retryable, bool) for kind in kinds)
