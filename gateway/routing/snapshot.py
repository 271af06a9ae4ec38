"""The routing snapshot: everything a request needs to know of control state, immutable, swapped whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adapters.experiments.values import Experiment
from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Alias, Version
from gateway.access.identify import Keyring
from gateway.routing.trials import Running, running
from gateway.routing.tuned import of_version
from gateway.values import Target

LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row of `GET /v1/models`."""

    id: str
    created: int
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Control state at one revision.

    `targets` maps every string that `model` may be to what it means; `residents` maps a replica's name to the
    engine-side names that it serves; `wanted` holds the engine-side names behind aliases and arms of experiments;
    `pinned` maps the aliases and the arms that keep a slot to them, the one moved last at the end; `out` says why a
    replica must not be used, whatever it holds; `running` holds the experiments, by every spelling of their alias.
    """

    revision: int
    keyring: Keyring
    base: Target
    targets: Mapping[str, Target]
    listed: Sequence[Listed]
    residents: Mapping[str, frozenset[str]]
    wanted: frozenset[str]
    pinned: Mapping[str, str] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    running: Mapping[str, Running] = field(default_factory=dict)


def build(
    *,
    revision: int,
    base_name: str,
    base_created: int,
    keyring: Keyring,
    versions: Iterable[Version],
    aliases: Iterable[Alias],
    residents: Mapping[str, frozenset[str]],
    out: Mapping[str, str] | None = None,
    experiments: Iterable[Experiment] = (),
) -> Snapshot:
    """Join the rows of one revision. Only verified versions can be asked for."""
    base = Target(engine_name=base_name)
    targets: dict[str, Target] = {base_name: base}
    rows = [Listed(id=base_name, created=base_created)]
    servable = {(v.name, v.number): v for v in versions if v.state is State.VERIFIED}
    for (name, number), version in servable.items():
        targets[f"{name}:{number}"] = _target(version)
        if tuned := of_version(base_name, version):
            targets[tuned] = targets[f"{name}:{number}"]
            rows.append(Listed(id=tuned, created=int(version.created_at), digest=version.digest))
    wanted = set()
    trials = {f"{each.name}@{each.alias}": each for each in experiments}
    on_trial: dict[str, Running] = {}
    pinned: list[tuple[float, str, str]] = []
    for alias in aliases:
        version_ = servable.get((alias.name, alias.number))
        if version_ is None:
            continue
        spellings = [f"{alias.name}@{alias.alias}"]
        if alias.alias == LIVE:
            spellings.append(alias.name)
        trial = trials.get(spellings[0])
        if trial is not None and trial.control.number != alias.number:
            trial = None  # somebody moved the alias: it is over
        target = _pointed(alias, version_, servable, pinned=alias.pinned or trial is not None)
        wanted.add(target.engine_name)
        if alias.pinned:
            pinned.append((alias.moved_at, spellings[0], target.engine_name))
        if trial is not None:
            on_trial |= dict.fromkeys(spellings, found := _on_trial(trial, target, servable))
            arms = {each.engine_name for each in (*found.targets.values(), found.shadow) if each}
            pinned += [(trial.opened_at, f"{trial.id}/{arm}", arm) for arm in sorted(arms)]
            wanted |= arms
        targets |= dict.fromkeys(spellings, target)
        rows.append(Listed(id=spellings[-1], created=int(version_.created_at), digest=version_.digest))
    return Snapshot(
        revision=revision,
        keyring=keyring,
        base=base,
        targets=targets,
        listed=tuple(sorted(rows, key=lambda row: (row.digest != "", row.id))),
        residents=residents,
        wanted=frozenset(wanted),
        pinned={spelling: name for _, spelling, name in sorted(pinned)},
        out=out or {},
        running=on_trial,
    )


def _pointed(alias: Alias, version: Version, servable: Mapping[tuple[str, int], Version], *, pinned: bool) -> Target:
    """What an alias means: its version, and what it declares for the time when that cannot answer."""
    earlier = servable.get((alias.name, alias.previous)) if alias.previous is not None else None
    return replace(
        _target(version),
        on_unavailable=alias.on_unavailable,
        previous=_target(earlier) if earlier else None,
        pinned=pinned,
    )


def _on_trial(trial: Experiment, served: Target, servable: Mapping[tuple[str, int], Version]) -> Running:
    def version(number: int) -> Target | None:
        found = servable.get((trial.name, number))
        return _target(found) if found else None

    return running(trial, served, version)


def _target(version: Version) -> Target:
    return Target(
        engine_name=engine_name(version),
        adapter=f"{version.name}:{version.number}",
        digest=version.digest,
        carried=version.carried or None,
    )
