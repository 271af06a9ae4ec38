"""Which adapter slots running experiments have for themselves, and whether there is room for another. Pure.

An arm that has to wait for a slot is slower than the other for a reason that is not its own. So each has one on every
replica that may serve it, as a pinned alias has, and one slot is left for all other adapters.
"""

from __future__ import annotations

from collections.abc import Iterable

from adapters.experiments.errors import NoSlots
from adapters.experiments.values import Experiment
from adapters.values import Alias

Served = frozenset[tuple[str, int]]


def served(experiment: Experiment) -> Served:
    """The versions that an experiment asks engines for, by name and number."""
    shadows = (experiment.shadow,) if experiment.shadow else ()
    return frozenset((experiment.name, arm.number) for arm in (experiment.control, *experiment.treatments, *shadows))


def reserved(experiments: Iterable[Experiment]) -> Served:
    """What all of them ask for."""
    return frozenset().union(*map(served, experiments))


def check_slots(wanted: Experiment, active: Iterable[Experiment], aliases: Iterable[Alias], slots: int) -> None:
    """Raise NoSlots where the arms do not fit beside pinned aliases and the arms of others. `slots` are those of one
    replica that one gateway process may use."""
    pinned = frozenset((alias.name, alias.number) for alias in aliases if alias.pinned)
    others = reserved(each for each in active if each.id != wanted.id)
    needed = served(wanted) - pinned - others
    free = max(0, slots - 1 - len(pinned | others))
    if len(needed) > free:
        raise NoSlots(
            f"The experiment needs {len(needed)} adapter slots on each engine and {free} of {slots} can be had: pinned "
            f"aliases have {len(pinned)}, other experiments {len(others - pinned)}, and one is left for all other "
            "adapters. Unpin an alias, stop an experiment, use fewer arms, or raise [engine] max_loras."
        )
