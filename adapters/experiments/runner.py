"""One look at an experiment, carried out: the look, the decision, the turn, the alias.

Every step is one transaction or one compare-and-set, in an order in which whoever is killed between any two is followed
by somebody who goes on: `promoting` is written before the alias moves, and `promoted` after it. A person who moves the
alias meanwhile wins: the experiment stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from adapters.errors import Conflict, GateClosed, Gone, IllegalMove, NotFound
from adapters.experiments import ramp, turns
from adapters.experiments.analysis import Look, analyse
from adapters.experiments.assignment import epoch
from adapters.experiments.decide import Decision, decide
from adapters.experiments.errors import ExperimentConflict
from adapters.experiments.metrics import UnitTable
from adapters.experiments.store import ExperimentStore
from adapters.experiments.turns import Turn
from adapters.experiments.values import Answer, Arm, Experiment, Proposal, Ruling, Stage, Verdict
from adapters.lifecycle import State
from adapters.values import Alias, Version
from monitoring.statistics.errors import BadSample
from monitoring.statistics.mismatch import mismatch
from monitoring.statistics.values import Interval

WHO = "experiments"


class Aliases(Protocol):
    """What of the registry is needed."""

    def resolve_name(self, model: str) -> Version: ...

    def promote(self, name: str, number: int, *, alias: str, expected: int, who: str, why: str) -> Alias: ...


def step(
    id_: str,
    table: UnitTable | None,
    *,
    now: float,
    store: ExperimentStore,
    registry: Aliases,
    broken: Sequence[str] = (),
) -> Ruling:
    """Look once, and do what follows. `table` is None, and `broken` says why, where the records cannot be had.

    Raises ExperimentNotFound, ExperimentOver, and ExperimentConflict when somebody else took a turn meanwhile: nothing
    was done then, look again. Errors of the registry pass through; the next step goes on where this one stopped.
    """
    experiment = store.get(id_)
    if not experiment.active:
        raise turns.over(experiment)
    if experiment.stage is Stage.PROMOTING:
        return _finish(experiment, now=now, store=store, registry=registry)
    if (there := _points_at(experiment, registry)) != experiment.control.number:
        return _stopped(experiment, _moved(experiment, there), now=now, store=store)
    look = _look(experiment, table, now=now, broken=broken)
    decision = decide(experiment, look, now=now, unfit=_unfit(experiment, registry))
    turn = _turn(experiment, table, look, decision, store.proposals(experiment.id), now=now)
    after = store.take(turn)
    if after.stage is Stage.PROMOTING:
        return _finish(after, now=now, store=store, registry=registry)
    return replace(turn.ruling, turn=after.turn)


def stop(id_: str, *, who: str, why: str, now: float, store: ExperimentStore) -> Experiment:
    """End it without a decision: everybody is served what the alias points at. Raises ExperimentNotFound,
    ExperimentOver."""
    ruling = Ruling(experiment=id_, at=now, verdict=Verdict.STOP, reasons=(why,) if why else (), who=who)
    while True:
        try:
            return store.take(Turn(after=replace(store.get(id_), stage=Stage.STOPPED), ruling=ruling))
        except ExperimentConflict:
            continue  # a look came between; an experiment that has ended raises ExperimentOver


def numbers(look: Look) -> dict[str, Any]:
    """The look as JSON; what is not known is null."""
    estimates = []
    for each in look.estimates:
        slices = {name: _interval(found) for name, found in (each.slices or {}).items()}
        estimates.append(
            {
                "metric": each.metric,
                "arm": each.arm,
                "role": str(each.role),
                **_interval(each.interval),
                "control": each.control,
                "treatment": each.treatment,
                "guard": str(each.guard) if each.guard else None,
                "slices": slices,
            }
        )
    return {
        "units": dict(look.units),
        "settled": dict(look.settled),
        "estimates": estimates,
        "srm": asdict(look.srm),
        "mixed": look.mixed,
        "missing": look.missing,
        "unitless": look.unitless,
    }


def _interval(found: Interval) -> dict[str, Any]:
    known = {name: value for name, value in asdict(found).items() if math.isfinite(value)}
    return {"estimate": None, "lower": None, "upper": None, "units": 0, **known}


def _look(experiment: Experiment, table: UnitTable | None, *, now: float, broken: Sequence[str]) -> Look:
    try:
        if table is not None:
            look = analyse(experiment, table, now=now)
            return replace(look, broken=(*broken, *look.broken))
        why = tuple(broken) or ("there are no records to look at",)
    except BadSample as problem:
        why = (*broken, f"the records cannot be analysed: {problem}")
    return Look(at=now, units={}, settled={}, srm=mismatch([0, 0], [1, 1]), broken=why)


def _unfit(experiment: Experiment, registry: Aliases) -> dict[str, str]:
    found = {}
    for arm in experiment.treatments:
        version = registry.resolve_name(f"{experiment.name}:{arm.number}")
        if version.state is not State.VERIFIED:
            found[arm.name] = f"version {arm.number} is {version.state} and may not serve"
    return found


def _turn(
    experiment: Experiment,
    table: UnitTable | None,
    look: Look,
    decision: Decision,
    proposals: Sequence[Proposal],
    *,
    now: float,
) -> Turn:
    """What the decision makes of the experiment, and of the proposals about it."""
    standing = next((each for each in proposals if each.open), None)
    answer: Answer | None = None
    if standing and standing.answer is Answer.PENDING and now >= standing.expires_at:
        answer, standing = Answer.EXPIRED, None
    if standing and standing.arm and standing.arm not in {arm.name for arm in experiment.treatments}:
        answer, standing = Answer.WITHDRAWN, None
    if standing and standing.answer is Answer.APPROVED and decision.trusted:
        decision = _approved(standing, decision)
    proposal = None
    if decision.verdict in experiment.ask_before:
        if standing and standing.answer is Answer.APPROVED and _same(experiment, standing, decision):
            answer = Answer.DONE
        else:
            proposal, decision = _asked(experiment, decision, standing, proposals, now=now)
            if proposal and standing:
                answer = Answer.WITHDRAWN
    after = _after(experiment, table, decision, now=now)
    ruling = Ruling(
        experiment=experiment.id,
        at=now,
        verdict=decision.verdict,
        reasons=decision.reasons,
        who=WHO,
        arm=decision.arm,
        numbers=numbers(look),
    )
    evidence = max(experiment.srm, look.srm.log_evidence)
    if decision.verdict is Verdict.HOLD and decision.arm and not decision.trusted:
        evidence = max(evidence, -math.log(experiment.srm_alpha))  # the final check is asked once, and failed
    return Turn(after=replace(after, srm=evidence), ruling=ruling, proposal=proposal, answer=answer)


def _after(experiment: Experiment, table: UnitTable | None, decision: Decision, *, now: float) -> Experiment:
    if decision.verdict is Verdict.PROMOTE:
        return replace(experiment, stage=Stage.PROMOTING, chosen=decision.arm)
    if decision.verdict is Verdict.ROLL_BACK:
        return replace(experiment, stage=Stage.ROLLED_BACK)
    after, begins = experiment, False
    if decision.verdict is Verdict.RAMP:
        after, begins = replace(experiment, step=experiment.step + 1, step_since=now), True
    elif decision.verdict is Verdict.DROP:
        after, begins = replace(experiment, dropped=(*experiment.dropped, decision.arm)), True
    if experiment.adaptive is None:
        return after
    targets = ramp.targets(after, table, now=now) if table is not None and decision.trusted else None
    if targets is None and begins:
        targets = experiment.epochs[-1].targets
    return replace(after, epochs=(*after.epochs, epoch(after, since=now, targets=targets))) if targets else after


def _approved(standing: Proposal, decision: Decision) -> Decision:
    """What a person approved is done, unless something speaks against it now: a winner stays one."""
    if decision.verdict not in (Verdict.HOLD, Verdict.RAMP, Verdict.PROMOTE):
        return decision
    said = f"approved by {standing.decided_by}" + (f": {standing.why}" if standing.why else "")
    return Decision(verdict=standing.verdict, reasons=(*standing.reasons, said), arm=standing.arm)


def _asked(
    experiment: Experiment,
    decision: Decision,
    standing: Proposal | None,
    proposals: Sequence[Proposal],
    *,
    now: float,
) -> tuple[Proposal | None, Decision]:
    """A new proposal where one is due, and the decision to wait for it."""
    alike = [each for each in proposals if _same(experiment, each, decision)]
    refused = next((each for each in alike if each.answer is Answer.REJECTED and each.expires_at > now), None)
    if refused:
        wait = f"{decision.verdict} was rejected by {refused.decided_by}; it is asked again in "
        wait += f"{refused.expires_at - now:.0f} s"
        return None, replace(decision, verdict=Verdict.HOLD, reasons=(*decision.reasons, wait))
    if standing and standing in alike:
        wait = f"{decision.verdict} waits for the approval of proposal {standing.id}"
        return None, replace(decision, verdict=Verdict.HOLD, reasons=(*decision.reasons, wait))
    proposal = Proposal(
        id=f"{experiment.id}.{experiment.turn}",
        experiment=experiment.id,
        verdict=decision.verdict,
        arm=decision.arm,
        step=experiment.step,
        role=experiment.ask_role,
        reasons=decision.reasons,
        proposed_at=now,
        expires_at=now + experiment.ask_s,
    )
    wait = f"{decision.verdict} is proposed as {proposal.id}"
    return proposal, replace(decision, verdict=Verdict.HOLD, reasons=(*decision.reasons, wait))


def _same(experiment: Experiment, proposal: Proposal, decision: Decision) -> bool:
    if proposal.verdict is not decision.verdict:
        return False
    return proposal.arm == decision.arm if decision.verdict is Verdict.PROMOTE else proposal.step == experiment.step


def _finish(experiment: Experiment, *, now: float, store: ExperimentStore, registry: Aliases) -> Ruling:
    """Move the alias, if it is not there yet, and say so."""
    arm = next(arm for arm in experiment.arms if arm.name == experiment.chosen)
    there = _points_at(experiment, registry)
    if there == experiment.control.number:
        try:
            _promote(experiment, arm, registry)
            there = arm.number
        except Conflict:
            there = _points_at(experiment, registry)  # somebody was faster: perhaps another of us
        except (GateClosed, IllegalMove, Gone) as refusal:
            return _take(experiment, Stage.RUNNING, Verdict.HOLD, str(refusal), now=now, store=store)
    if there != arm.number:
        return _stopped(experiment, _moved(experiment, there), now=now, store=store)
    said = f"{experiment.name}@{experiment.alias} points at version {arm.number}"
    return _take(experiment, Stage.PROMOTED, Verdict.PROMOTE, said, now=now, store=store)


def _promote(experiment: Experiment, arm: Arm, registry: Aliases) -> None:
    registry.promote(
        experiment.name,
        arm.number,
        alias=experiment.alias,
        expected=experiment.control.number,
        who=WHO,
        why=f"experiment {experiment.id}: {arm.name} won",
    )


def _points_at(experiment: Experiment, registry: Aliases) -> int | None:
    try:
        return registry.resolve_name(f"{experiment.name}@{experiment.alias}").number
    except NotFound:
        return None


def _moved(experiment: Experiment, there: int | None) -> str:
    where = f"points at version {there}" if there else "is gone"
    return (
        f"somebody moved the alias: {experiment.name}@{experiment.alias} {where}, and the control is version "
        f"{experiment.control.number}"
    )


def _stopped(experiment: Experiment, why: str, *, now: float, store: ExperimentStore) -> Ruling:
    return _take(experiment, Stage.STOPPED, Verdict.STOP, why, now=now, store=store)


def _take(
    experiment: Experiment, stage: Stage, verdict: Verdict, why: str, *, now: float, store: ExperimentStore
) -> Ruling:
    ruling = Ruling(experiment=experiment.id, at=now, verdict=verdict, reasons=(why,), who=WHO, arm=experiment.chosen)
    after = store.take(Turn(after=replace(experiment, stage=stage), ruling=ruling))
    return replace(ruling, turn=after.turn)
