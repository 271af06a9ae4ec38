"""What should be, as of one revision: who is wanted where. Made anew only when the rows or the replicas changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from adapters.intake import UNPROBED
from adapters.lifecycle import State
from adapters.store import Alias, Version
from gateway.engines.fleet.reconcile import Wanted, ranked, shares
from gateway.routing.store import Out


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """`names` holds every version that may be on an engine, by engine-side name. `wanted` is what may be loaded, most
    needed first, and `shares` what each replica should load of it; `new` has not served yet; `waiting` needs a first
    forward elsewhere before. `capacities` and `full` are what `shares` was made for."""

    revision: int = -1
    capacities: Mapping[str, int] = field(default_factory=dict)
    full: frozenset[str] = frozenset()
    names: Mapping[str, Version] = field(default_factory=dict)
    shares: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    out: Mapping[str, Out] = field(default_factory=dict)
    wanted: tuple[Version, ...] = ()
    new: tuple[Wanted, ...] = ()
    waiting: tuple[Version, ...] = ()


def view(
    revision: int,
    versions: Iterable[Version],
    aliases: Iterable[Alias],
    out: Mapping[str, Out],
    capacities: Mapping[str, int],
    copies_min: int,
    full: Mapping[str, frozenset[str]],
    arms: Iterable[tuple[str, int]] = (),
) -> View:
    wanted = ranked(versions, aliases, arms)
    loadable = [w for w in wanted if not unready(w.version)]
    return View(
        revision=revision,
        capacities=capacities,
        names={w.name: w.version for w in reversed(wanted)},  # the most needed of those that share a name
        full=frozenset(full),
        shares=shares(loadable, capacities, copies_min, full),
        out=out,
        wanted=tuple(w.version for w in loadable),
        new=tuple(w for w in loadable if w.version.state is not State.VERIFIED),
        waiting=tuple(w.version for w in wanted if unready(w.version)),
    )


def unready(version: Version) -> bool:
    """Whether it must be probed off the shared engines before any of them may load it: all but those that were
    registered as unprobed, whose first forward runs on an engine that serves."""
    return version.state is State.CHECKED and UNPROBED not in version.labels
