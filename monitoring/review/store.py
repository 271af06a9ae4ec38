"""Rows of tasks and of who has them: the Protocol, and the twin in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import Protocol

from monitoring.review.errors import AlreadyAnswered, ClaimLost, TaskNotFound
from monitoring.review.values import Answer, Claim, Kind, State, Task

#: Task and reviewer → whether the second answer stands on the left.
Coin = Callable[[str, str], bool]


class ReviewStore(Protocol):
    """No words of people, and one tenant at a time. Synchronous; all may raise ReviewUnavailable.

    A task has `overlap` seats: an answer fills one for good, a claim until it ends. Who answered a task or passed it
    over never gets it again.
    """

    def add(self, tasks: Sequence[Task], *, most: int | None = None, keep: bool = True) -> tuple[Task, ...]:
        """Insert the first `most` whose subject has no task yet; returns these. Without `keep` only tells which."""
        ...

    def get(self, tenant: str, task: str) -> Task:
        """TaskNotFound."""
        ...

    def list(
        self, tenant: str, *, state: State = "open", kind: Kind | None = None, after: str = "", limit: int = 100
    ) -> tuple[Task, ...]:
        """The oldest first, after an id."""
        ...

    def claim(
        self, tenant: str, reviewer: str, *, kind: Kind | None, now: float, until: float, coin: Coin
    ) -> Claim | None:
        """The oldest task with a free seat that `reviewer` has neither had nor has, theirs until a moment; or none."""
        ...

    def held(self, tenant: str, task: str, reviewer: str, *, now: float, asked: bool = True) -> Claim:
        """The claim that an answer would stand on: one that runs, or has run out while a seat is still free. Without
        `asked` no claim is needed, nor a free seat. TaskNotFound, ClaimLost, AlreadyAnswered."""
        ...

    def answer(self, tenant: str, answer: Answer, *, asked: bool = True) -> Task:
        """Keep it, in the place of the claim; the same conditions and errors as `held`, at the answer's moment."""
        ...

    def answers(self, tenant: str, *, tasks: Sequence[str] | None = None) -> tuple[Answer, ...]:
        """Everything that was said, by task, then in its order; without what was passed over."""
        ...

    def drop(self, tenant: str, task: str) -> None:
        """Forget a task whose record is gone, with all that was said of it. Twice is once."""
        ...


class MemoryReviews:
    """The twin for tests; one process, any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tasks: dict[str, Task] = {}
        self._turns: dict[tuple[str, str], Claim | Answer] = {}

    def add(self, tasks: Sequence[Task], *, most: int | None = None, keep: bool = True) -> tuple[Task, ...]:
        with self._lock:
            known = {task.subject for task in self._tasks.values()}
            added = fresh(tasks, known, most)
            if keep:
                self._tasks |= {task.id: task for task in added}
            return added

    def get(self, tenant: str, task: str) -> Task:
        found = self._tasks.get(task)
        if found is None or found.tenant != tenant:
            raise TaskNotFound(task)
        return found

    def list(
        self, tenant: str, *, state: State = "open", kind: Kind | None = None, after: str = "", limit: int = 100
    ) -> tuple[Task, ...]:
        with self._lock:
            found = sorted((t for t in self._tasks.values() if t.tenant == tenant and t.id > after), key=lambda t: t.id)
        kept = (t for t in found if state == "all" or t.done == (state == "done"))
        return tuple(t for t in kept if kind in (None, t.kind))[:limit]

    def claim(
        self, tenant: str, reviewer: str, *, kind: Kind | None, now: float, until: float, coin: Coin
    ) -> Claim | None:
        with self._lock:
            for task in self.list(tenant, limit=len(self._tasks)):
                mine = self._turns.get((task.id, reviewer))
                running = isinstance(mine, Claim) and mine.until > now
                if kind in (None, task.kind) and not isinstance(mine, Answer) and not running and self._free(task, now):
                    claim = Claim(task=task, reviewer=reviewer, until=until, flipped=coin(task.id, reviewer))
                    self._turns[task.id, reviewer] = claim
                    return claim
        return None

    def held(self, tenant: str, task: str, reviewer: str, *, now: float, asked: bool = True) -> Claim:
        with self._lock:
            found = self.get(tenant, task)
            mine = self._turns.get((task, reviewer))
            if isinstance(mine, Answer):
                raise AlreadyAnswered(task, reviewer)
            claim = mine or Claim(task=found, reviewer=reviewer, until=now)
            if asked and (mine is None or (claim.until <= now and not self._free(found, now))):
                raise ClaimLost(task, reviewer)
            return replace(claim, task=found)

    def answer(self, tenant: str, answer: Answer, *, asked: bool = True) -> Task:
        with self._lock:
            task = self.held(tenant, answer.task, answer.reviewer, now=answer.at, asked=asked).task
            self._turns[task.id, answer.reviewer] = answer
            self._tasks[task.id] = replace(task, answered=task.answered + (not answer.skipped))
            return self._tasks[task.id]

    def answers(self, tenant: str, *, tasks: Sequence[str] | None = None) -> tuple[Answer, ...]:
        with self._lock:
            found = [turn for turn in self._turns.values() if isinstance(turn, Answer) and not turn.skipped]
            mine = [a for a in found if self._tasks[a.task].tenant == tenant and (tasks is None or a.task in tasks)]
        return tuple(sorted(mine, key=lambda a: (a.task, a.at, a.reviewer)))

    def drop(self, tenant: str, task: str) -> None:
        with self._lock:
            if task in self._tasks and self._tasks[task].tenant == tenant:
                del self._tasks[task]
                self._turns = {key: turn for key, turn in self._turns.items() if key[0] != task}

    def _free(self, task: Task, now: float) -> bool:
        turns = [turn for (of, _), turn in self._turns.items() if of == task.id]
        running = sum(isinstance(turn, Claim) and turn.until > now for turn in turns)
        return task.answered + running < task.overlap


def fresh(tasks: Iterable[Task], known: Set[str], most: int | None) -> tuple[Task, ...]:
    """The first `most` whose subject is neither known nor that of one before."""
    found: dict[str, Task] = {}
    for task in tasks:
        if most is not None and len(found) >= most:
            break
        if task.subject not in known:
            found.setdefault(task.subject, task)
    return tuple(found.values())
