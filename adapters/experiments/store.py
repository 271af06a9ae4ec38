"""Rows of experiments, rulings and proposals: the Protocol, and the twin in memory. turns.py says what may change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from adapters.experiments import turns
from adapters.experiments.turns import Turn
from adapters.experiments.values import Answer, Experiment, Proposal, Ruling

#: Looks at all that are active before one is opened beside them; raises where there is no room for it.
Admit: TypeAlias = Callable[[Sequence[Experiment]], None]


class ExperimentStore(Protocol):
    """What the worker, the gateway and people need. Synchronous; all may raise ExperimentsUnavailable."""

    def open(self, experiment: Experiment, *, admit: Admit | None = None) -> Experiment:
        """Insert it, with its first ruling, in one step. The same id again is returned as it is. ExperimentConflict
        when the alias has an active one; what `admit` raises, which nothing comes between."""
        ...

    def get(self, id_: str) -> Experiment:
        """ExperimentNotFound."""
        ...

    def list(self, name: str | None = None, *, active: bool = False) -> tuple[Experiment, ...]:
        """The newest first; of one adapter or of all."""
        ...

    def take(self, turn: Turn) -> Experiment:
        """Compare-and-set on the experiment's turn: the experiment, the ruling and the proposals in one step.
        ExperimentNotFound, ExperimentOver, ExperimentConflict."""
        ...

    def rulings(self, id_: str, limit: int = 100) -> tuple[Ruling, ...]:
        """The newest first."""
        ...

    def proposals(self, experiment: str | None = None, *, open_only: bool = False) -> tuple[Proposal, ...]:
        """The newest first."""
        ...

    def answer(self, id_: str, answer: Answer, *, who: str, why: str, now: float) -> Proposal:
        """Approve or reject, as a compare-and-set on pending. ExperimentNotFound, ProposalOver."""
        ...


class MemoryExperiments:
    """The twin for tests; one process, any number of threads."""

    def __init__(self) -> None:
        self.revision = 1
        self._lock = threading.RLock()
        self._experiments: dict[str, Experiment] = {}
        self._rulings: list[Ruling] = []
        self._proposals: dict[str, Proposal] = {}

    def open(self, experiment: Experiment, *, admit: Admit | None = None) -> Experiment:
        with self._lock:
            if known := self._experiments.get(experiment.id):
                return known
            active = self.list(active=True)
            here = [each for each in active if (each.name, each.alias) == (experiment.name, experiment.alias)]
            ruling = turns.opened(experiment, here)
            if admit is not None:
                admit(active)
            self._rulings.append(ruling)
            self._experiments[experiment.id] = experiment
            self.revision += 1
            return experiment

    def get(self, id_: str) -> Experiment:
        if (found := self._experiments.get(id_)) is None:
            raise turns.no_experiment(id_)
        return found

    def list(self, name: str | None = None, *, active: bool = False) -> tuple[Experiment, ...]:
        with self._lock:
            found = [each for each in self._experiments.values() if name in (None, each.name)]
        found.sort(key=lambda each: (each.opened_at, each.id), reverse=True)
        return tuple(each for each in found if each.active or not active)

    def take(self, turn: Turn) -> Experiment:
        with self._lock:
            held = self.get(turn.after.id)
            done = turns.turned(held, turn)
            standing = self.proposals(held.id, open_only=True)
            for proposal in turns.proposed(standing, done):
                self._proposals[proposal.id] = proposal
            self._experiments[held.id] = done.after
            self._rulings.append(done.ruling)
            self.revision += turns.routed_otherwise(held, done.after)
            return done.after

    def rulings(self, id_: str, limit: int = 100) -> tuple[Ruling, ...]:
        with self._lock:
            return tuple([ruling for ruling in reversed(self._rulings) if ruling.experiment == id_][:limit])

    def proposals(self, experiment: str | None = None, *, open_only: bool = False) -> tuple[Proposal, ...]:
        with self._lock:
            found = [each for each in self._proposals.values() if experiment in (None, each.experiment)]
        found.sort(key=lambda each: (each.proposed_at, each.id), reverse=True)
        return tuple(each for each in found if each.open or not open_only)

    def answer(self, id_: str, answer: Answer, *, who: str, why: str, now: float) -> Proposal:
        with self._lock:
            if (held := self._proposals.get(id_)) is None:
                raise turns.no_proposal(id_)
            self._proposals[id_] = turns.answered(held, answer, who=who, why=why, now=now)
            return self._proposals[id_]
