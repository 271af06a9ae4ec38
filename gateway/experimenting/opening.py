"""Opened, stopped, approved: what routes and verbs call. Blocking."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from functools import partial

from adapters.errors import NotFound, shown
from adapters.experiments import runner, turns
from adapters.experiments.definition import Definition, made
from adapters.experiments.errors import BadExperiment, ExperimentConflict, ExperimentOver
from adapters.experiments.values import Answer, Experiment, Proposal
from adapters.lifecycle import State
from gateway.access.errors import Forbidden
from gateway.access.keys import Role
from gateway.control import Control
from gateway.engines.process.devices import CPU_LORAS
from gateway.experimenting.slots import check_slots
from gateway.routing.fairness import share
from gateway.settings import Settings

#: Who opens the permanent self-test; one of a person is treated as any other experiment.
SELFTEST = "self-test"
_TRIES = 3
_NUMBER_MAX = 1 << 31


def open_experiment(control: Control, settings: Settings, wish: Definition, *, who: str, now: float) -> Experiment:
    """Open an experiment on an alias. The permanent self-test makes way for it.

    Raises NotFound for an alias that there is not, BadExperiment with every reason, NoSlots, ExperimentConflict.
    """
    points_at = control.registry.resolve_name(f"{wish.name}@{wish.alias}").number
    experiment = _made(control, wish, who=who, now=now, points_at=points_at)
    slots = share(settings.engine.max_loras or CPU_LORAS, settings.workers)
    admit = partial(check_slots, experiment, aliases=control.adapters.aliases(), slots=slots)
    for _ in range(_TRIES):
        try:
            return control.experiments.open(experiment, admit=admit)
        except ExperimentConflict:
            if not _gave_way(control, experiment, now=now):
                raise
    return control.experiments.open(experiment, admit=admit)


def stop_experiment(control: Control, id_: str, *, who: str, why: str, now: float) -> Experiment:
    """End it without a decision. Raises ExperimentNotFound, ExperimentOver."""
    return runner.stop(id_, who=who, why=why, now=now, store=control.experiments)


def answer_proposal(
    control: Control, id_: str, answer: Answer, *, who: str, why: str, now: float, roles: Collection[str] | None = None
) -> Proposal:
    """Approve or reject what an experiment proposes; `roles` are the caller's, None for whoever has the machine. The
    proposal's row keeps who answered, when and why. Raises ExperimentNotFound, Forbidden, ProposalOver."""
    asked = next((each for each in control.experiments.proposals() if each.id == id_), None)
    if asked is None:
        raise turns.no_proposal(id_)
    if roles is not None and asked.role not in roles:
        raise Forbidden(sorted(roles), [asked.role])
    return control.experiments.answer(id_, answer, who=who, why=why, now=now)


def _made(control: Control, wish: Definition, *, who: str, now: float, points_at: int) -> Experiment:
    """The experiment, or every reason against it in one pass."""
    reasons = []
    if wish.ask_role not in set(Role):
        reasons.append(f"ask_role: {shown(wish.ask_role)}; allowed: {', '.join(Role)}.")
    try:
        experiment = made(
            wish,
            id_=f"exp-{secrets.token_hex(6)}",
            salt=secrets.token_hex(16),
            who=who,
            now=now,
            verified=partial(_verified, control, wish.name),
            points_at=points_at,
        )
    except BadExperiment as refusal:
        raise BadExperiment((*refusal.reasons, *reasons)) from None
    if reasons:
        raise BadExperiment(reasons)
    return experiment


def _verified(control: Control, name: str, number: int) -> bool:
    try:
        return 0 < number < _NUMBER_MAX and control.adapters.get(name, number).state is State.VERIFIED
    except NotFound:
        return False


def _gave_way(control: Control, experiment: Experiment, *, now: float) -> bool:
    """Stop the permanent self-test on this alias; False where that is not what runs there."""
    if experiment.opened_by == SELFTEST:
        return False
    for each in control.experiments.list(experiment.name, active=True):
        if each.alias == experiment.alias:
            if each.opened_by != SELFTEST:
                return False
            try:
                stop_experiment(control, each.id, who=SELFTEST, why=f"{experiment.opened_by} tests here now", now=now)
            except ExperimentOver:
                continue
    return True  # it is over by now, whoever ended it
