"""What a turn of an experiment may change, and what an answer to a proposal may: one place for both stores. Pure.

Invariants, held in the transaction that takes the turn:

- One active experiment for each alias of an adapter.
- A turn starts from the row as it is (compare-and-set on `turn`); an experiment that has ended takes none.
- Steps only grow, dropped arms stay dropped, the evidence of a mismatch never shrinks, and all that the guarantees
  rest on never changes.
- Each turn writes the ruling that it rests on, and ends the proposal that it overtakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from adapters.experiments.errors import ExperimentConflict, ExperimentNotFound, ExperimentOver, ProposalOver
from adapters.experiments.values import MOVES, Answer, Experiment, Proposal, Ruling, Verdict

#: What a turn may change.
_MOVING = frozenset({"stage", "step", "step_since", "epochs", "dropped", "chosen", "srm", "ended_at", "turn"})
#: What gateways route by: a change of one of these moves the revision.
_ROUTED = ("stage", "step", "epochs", "dropped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Everything that one transaction writes: the experiment after it, why, a new proposal, and what became of the
    one that was open (None: it stands)."""

    after: Experiment
    ruling: Ruling
    proposal: Proposal | None = None
    answer: Answer | None = None


def opened(experiment: Experiment, active: Sequence[Experiment]) -> Ruling:
    """The first ruling. Raises ExperimentConflict when another experiment has the alias."""
    for other in active:
        if other.id != experiment.id:
            raise ExperimentConflict(
                f"{experiment.name}@{experiment.alias} has a running experiment: {other.id}, opened by "
                f"{other.opened_by}. Stop it first, or test on another alias."
            )
    return Ruling(
        experiment=experiment.id,
        at=experiment.opened_at,
        verdict=Verdict.OPEN,
        reasons=(experiment.note,) if experiment.note else (),
        who=experiment.opened_by,
        turn=experiment.turn,
    )


def turned(held: Experiment, turn: Turn) -> Turn:
    """The turn as it is written, if it may be taken. Raises ExperimentOver or ExperimentConflict."""
    after = turn.after
    if not held.active:
        raise over(held)
    if held.turn != after.turn:
        raise ExperimentConflict(
            f"Experiment {held.id} has moved: it is at turn {held.turn} ({held.stage}), not at {after.turn}. "
            "Look again before you move it."
        )
    if after.stage is not held.stage and after.stage not in MOVES[held.stage]:
        allowed = ", ".join(sorted(MOVES[held.stage]))
        raise ExperimentConflict(f"An experiment cannot go from {held.stage} to {after.stage}; it can to: {allowed}.")
    fixed = [f.name for f in fields(Experiment) if f.name not in _MOVING]
    changed = [name for name in fixed if getattr(held, name) != getattr(after, name)]
    if after.step < held.step or not set(held.dropped) <= set(after.dropped) or after.srm < held.srm:
        changed.append("what only grows")
    if changed:
        raise ExperimentConflict(f"A turn cannot change {', '.join(changed)} of experiment {held.id}.")
    number = held.turn + 1
    ended = 0.0 if after.active else turn.ruling.at
    return replace(
        turn,
        after=replace(after, turn=number, ended_at=ended),
        ruling=replace(turn.ruling, turn=number),
        answer=turn.answer if after.active else turn.answer or Answer.WITHDRAWN,
    )


def routed_otherwise(before: Experiment, after: Experiment) -> bool:
    """Whether gateways must learn of it."""
    return any(getattr(before, name) != getattr(after, name) for name in _ROUTED)


def answered(held: Proposal, answer: Answer, *, who: str, why: str, now: float) -> Proposal:
    """The proposal with a person's answer. Raises ProposalOver when there is nothing left to answer."""
    if held.answer is not Answer.PENDING:
        by = f" by {held.decided_by}" if held.decided_by else ""
        raise ProposalOver(f"Proposal {held.id} is {held.answer}{by}; only a pending one can be answered.")
    if now >= held.expires_at:
        raise ProposalOver(f"Proposal {held.id} expired {now - held.expires_at:.0f} s ago. Wait for the next one.")
    return replace(held, answer=answer, decided_by=who, decided_at=now, why=why)


def proposed(standing: Sequence[Proposal], turn: Turn) -> tuple[Proposal, ...]:
    """The proposals that the turn writes: those that stand, closed if it says so, and its new one. Raises
    ExperimentConflict when one would stand beside another."""
    if turn.answer is None:
        if standing and turn.proposal is not None:
            raise ExperimentConflict(f"Proposal {standing[0].id} stands; close it in the turn that proposes another.")
        ended: tuple[Proposal, ...] = ()
    else:
        at, answer = turn.ruling.at, turn.answer
        ended = tuple(
            replace(each, answer=answer, decided_at=each.decided_at if each.decided_by else at) for each in standing
        )
    return (*ended, *((turn.proposal,) if turn.proposal else ()))


def over(experiment: Experiment) -> ExperimentOver:
    return ExperimentOver(f"Experiment {experiment.id} is {experiment.stage}: it takes no step any more.")


def no_experiment(id_: str) -> ExperimentNotFound:
    return ExperimentNotFound(f"There is no experiment {id_}. `graftline experiments list` shows what there is.")


def no_proposal(id_: str) -> ExperimentNotFound:
    return ExperimentNotFound(f"There is no proposal {id_}. `graftline approvals list` shows what there is.")
