"""Which experiments run on which alias, and which arm a request is in. Pure.

The assigned unit is the tenant and the name together: two tenants' `user-7` are two users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b

from adapters.experiments import metrics
from adapters.experiments.assignment import Assigned, Plan, assign, bucket, plan
from adapters.experiments.values import Arm, Experiment, Unit
from gateway.access.errors import Forbidden
from gateway.access.keys import Key, Role
from gateway.errors import BadField
from gateway.values import Call, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An experiment as requests meet it. `targets` are what each arm is served, by the arm's name; `tags` are the
    metadata keys that it is sliced by; `shadow` is asked the same and answers nobody."""

    plan: Plan
    unit: Unit
    alias: str
    targets: Mapping[str, Target]
    tags: tuple[str, ...] = ()
    shadow_name: str = ""
    shadow: Target | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """A request's part in an experiment. `unit` as the caller named it; `kind` is the experiment's, or REQUEST where
    the request named none: then it is served as the alias says, and counts as one that could not be analysed."""

    running: Running
    assigned: Assigned
    unit: str
    kind: Unit
    bucket: int

    @property
    def analysed(self) -> bool:
        """Whether it had the unit that the experiment is about."""
        return self.kind is self.running.unit

    @property
    def target(self) -> Target:
        return self.running.targets[self.assigned.arm.name]


def running(experiment: Experiment, served: Target, version: Callable[[int], Target | None]) -> Running:
    """Lay an experiment over what its alias serves. A treatment that cannot answer is answered for by the control, and
    so is one that may not serve any more: its units stay in their arm, for that is what befell them."""

    def target(arm: Arm) -> Target:
        found = version(arm.number) if arm.number != experiment.control.number else None
        return replace(found, on_unavailable="previous", previous=served, pinned=True) if found else served

    shadow = version(experiment.shadow.number) if experiment.shadow else None
    return Running(
        plan=plan(experiment),
        unit=experiment.unit,
        alias=f"{experiment.name}@{experiment.alias}",
        targets={arm.name: target(arm) for arm in experiment.arms},
        tags=metrics.slices(experiment),
        shadow_name=experiment.shadow.name if experiment.shadow else "",
        shadow=replace(shadow, pinned=True) if shadow else None,
    )


def meet(found: Running, key: Key, call: Call, raw: bytes) -> Met | None:
    """The request's arm; None outside of the experiment's share, where what the alias points at serves as ever.

    What an SDK sends again has the same bytes, so that even where each request is a unit it meets the same arm.
    """
    unit, kind = _unit(found.unit, key, call, raw), found.unit
    if not unit:
        return Met(running=found, assigned=found.plan.arms[0], unit=_digest(key, raw), kind=Unit.REQUEST, bucket=0)
    at = bucket(found.plan.key, f"{key.tenant}\0{unit}")
    assigned = assign(found.plan, at)
    if assigned is None:
        return None
    return Met(running=found, assigned=assigned, unit=unit, kind=kind, bucket=at)


def pinned(found: Running | None, key: Key, arm: str) -> Target:
    """What an engineer asked for by `x-graftline-arm`. Raises Forbidden, BadField."""
    if Role.ENGINEER not in key.roles:
        raise Forbidden(sorted(key.roles), (Role.ENGINEER,))
    target = None
    if found is not None:
        target = found.shadow if arm == found.shadow_name else found.targets.get(arm)
    if target is None:
        there = ", ".join(found.targets) if found else "no experiment on this model"
        raise BadField(f"x-graftline-arm: {arm[:64]!r} is no arm; there is {there}.", param="x-graftline-arm")
    return target


def _unit(kind: Unit, key: Key, call: Call, raw: bytes) -> str:
    if kind is Unit.USER:
        return call.tags.user
    if kind is Unit.CONVERSATION:
        return call.tags.conversation
    return key.id if kind is Unit.KEY else _digest(key, raw)


def _digest(key: Key, raw: bytes) -> str:
    return blake2b(raw, digest_size=16, key=key.id.encode()[:64]).hexdigest()
