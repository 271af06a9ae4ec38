"""Promote, hold, roll back, drop an arm, or take the next step. Pure: what was seen goes in, a decision comes out.

The first line that applies decides:

1. An arm that may no longer serve, or a guardrail shown to be past its margin: that arm goes at once, and with the last
   one the experiment is rolled back. So it is even under a sample-ratio mismatch or on a broken data path: the control
   is what served before, and going back to it needs no proof; going on would.
2. A sample-ratio mismatch or a broken data path holds: no number of this experiment can be trusted.
3. The primary metric shown to be better, every guardrail shown to be within its margin, and no mismatch by the final
   check: promote.
4. A step that has lasted long enough: the next one.
5. Otherwise hold, and say what is being waited for.

A self-test never moves anything: whatever would be decided is an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.experiments.analysis import Look
from adapters.experiments.ramp import following
from adapters.experiments.values import Experiment, Role, Verdict
from monitoring.statistics.margins import Guard
from monitoring.statistics.values import Interval, unknown

#: The chi-square at the end is asked once more than the sequential test, at its own level.
SRM_FINAL_ALPHA = 0.002
#: How each reason of a self-test begins that has found something.
ALARM = "self-test alarm: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one treatment at this look; intervals are in the direction in which more is better."""

    arm: str
    primary: Interval
    guards: Mapping[str, Guard]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict with its reasons; `arm` is the one that it speaks of. `trusted`: the numbers can be acted on."""

    verdict: Verdict
    reasons: tuple[str, ...]
    arm: str = ""
    trusted: bool = True


def decide(
    experiment: Experiment,
    look: Look,
    *,
    now: float,
    unfit: Mapping[str, str] | None = None,
    broken: Sequence[str] = (),
) -> Decision:
    """Judge a running experiment. `unfit` says of an arm why it may not serve any more; `broken` says, in words, what
    else keeps these numbers from being trusted."""
    arms = seen(experiment, look)
    gone = _gone(arms, unfit or {})
    distrusted = _distrusted(experiment, look, broken)
    if experiment.selftest:
        return _selftest(experiment, look, arms, gone, distrusted, now=now)
    if gone:
        name, why = next(iter(gone.items()))
        if len(gone) == len(arms):
            return Decision(verdict=Verdict.ROLL_BACK, reasons=tuple(gone.values()), arm=name)
        return Decision(verdict=Verdict.DROP, reasons=(why,), arm=name)
    if distrusted:
        return Decision(verdict=Verdict.HOLD, reasons=distrusted, trusted=False)
    waits_s = experiment.opened_at + experiment.promote_after_s - now
    winners = [each for each in arms if not _waiting(each)]
    if winners and waits_s <= 0:
        return _promote(max(winners, key=lambda each: each.primary.estimate), look)
    waiting = [line for each in arms for line in _waiting(each)]
    if waits_s > 0:
        waiting.append(f"nothing is promoted for another {waits_s:.0f} s")
    return _ramp(experiment, waiting, now=now)


def seen(experiment: Experiment, look: Look) -> tuple[Seen, ...]:
    """The look by treatment."""
    found = []
    for arm in experiment.treatments:
        ours = [each for each in look.estimates if each.arm == arm.name]
        primary = next((each.interval for each in ours if each.role is Role.PRIMARY), unknown(0.0, 0))
        guards = {each.metric: each.guard for each in ours if each.guard is not None}
        found.append(Seen(arm=arm.name, primary=primary, guards=guards))
    return tuple(found)


def _gone(arms: Sequence[Seen], unfit: Mapping[str, str]) -> dict[str, str]:
    """Which arms must go, and why."""
    found = {}
    for each in arms:
        breached = [name for name, state in each.guards.items() if state is Guard.BREACHED]
        if each.arm in unfit:
            found[each.arm] = f"{each.arm}: {unfit[each.arm]}"
        elif breached:
            found[each.arm] = f"{each.arm}: {', '.join(breached)} past the margin"
    return found


def _distrusted(experiment: Experiment, look: Look, broken: Sequence[str]) -> tuple[str, ...]:
    found = [*broken, *look.broken]
    evidence = max(experiment.srm, look.srm.log_evidence)
    if evidence >= -math.log(experiment.srm_alpha):
        counts = ", ".join(f"{arm} {count}" for arm, count in look.units.items())
        found.append(f"the arms do not have their shares of the units (sample-ratio mismatch): {counts}")
    return tuple(found)


def _promote(best: Seen, look: Look) -> Decision:
    if look.srm.final(SRM_FINAL_ALPHA):
        why = f"{best.arm} would be promoted, but the arms' sizes fail the final check (p {look.srm.p_value:.2g})"
        return Decision(verdict=Verdict.HOLD, reasons=(why,), arm=best.arm, trusted=False)
    said = f"{best.arm}: the primary metric is better by {best.primary.lower:.4g} at least"
    return Decision(verdict=Verdict.PROMOTE, reasons=(said, "every guardrail is within its margin"), arm=best.arm)


def _ramp(experiment: Experiment, waiting: Sequence[str], *, now: float) -> Decision:
    after = following(experiment, now=now)
    if after is None:
        return Decision(verdict=Verdict.HOLD, reasons=tuple(waiting))
    share = f"{after.share / 100:g} % an arm"
    if after.waits_s > 0:
        return Decision(verdict=Verdict.HOLD, reasons=(*waiting, f"the next step, {share}, in {after.waits_s:.0f} s"))
    lasted = now - experiment.step_since
    return Decision(verdict=Verdict.RAMP, reasons=(f"this step lasted {lasted:.0f} s; the next is {share}",))


def _selftest(
    experiment: Experiment,
    look: Look,
    arms: Sequence[Seen],
    gone: Mapping[str, str],
    distrusted: Sequence[str],
    *,
    now: float,
) -> Decision:
    alarms = [*gone.values(), *distrusted]
    alarms += [f"{each.arm}: the primary metric differs ({_said(each.primary)})" for each in arms if _differs(each)]
    if alarms:
        return Decision(verdict=Verdict.HOLD, reasons=tuple(ALARM + alarm for alarm in alarms))
    units = sum(look.units.values())
    return _ramp(experiment, (f"self-test: no difference between one version and itself, {units} units",), now=now)


def _differs(arm: Seen) -> bool:
    return arm.primary.lower > 0 or arm.primary.upper < 0


def _waiting(arm: Seen) -> list[str]:
    """What keeps an arm from being promoted."""
    found = []
    if arm.primary.lower <= 0:
        found.append(f"{arm.arm}: the primary metric to be shown better ({_said(arm.primary)})")
    found += [f"{arm.arm}: {name} to be shown within its margin" for name, g in arm.guards.items() if g is Guard.OPEN]
    return found


def _said(interval: Interval) -> str:
    return f"{interval.estimate:+.4g}, between {interval.lower:.4g} and {interval.upper:.4g}, {interval.units} units"
