"""Some at a time: work on every item by a bounded crew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from training.evaluation.errors import EvaluationError

In = TypeVar("In")
Out = TypeVar("Out")


async def each(work: Callable[[In], Awaitable[Out]], items: Sequence[In], *, at_once: int) -> list[Out]:
    """The results in the items' order, `at_once` at a time. The first EvaluationError ends all, and is raised."""
    found: dict[int, Out] = {}
    places = iter(range(len(items)))

    async def worker() -> None:
        for at in places:
            found[at] = await work(items[at])

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(items))):
                group.create_task(worker())
    except ExceptionGroup as problems:
        foreseen = problems.subgroup(EvaluationError)
        if foreseen is None:
            raise
        raise _first(foreseen) from problems
    return [found[at] for at in range(len(items))]


def _first(problems: BaseExceptionGroup[EvaluationError]) -> EvaluationError:
    one = problems.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
