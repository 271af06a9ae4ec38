"""`graftline adapters`: the verbs that look, and where all of them are listed."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from adapters.card import finding
from adapters.diff import difference
from adapters.errors import NotFound
from adapters.export import deliver, parcel
from adapters.values import Evidence, Version
from gateway.control import open_control
from gateway.settings import load
from gateway.verbs import adapters_arrive, adapters_moves
from gateway.verbs.adapters_moves import DryRun, Name
from gateway.verbs.console import say, table, when

app = typer.Typer(no_args_is_help=True)
for verb in (adapters_arrive.register, adapters_arrive.sign):
    app.command()(verb)
for move in (
    adapters_moves.promote,
    adapters_moves.rollback,
    adapters_moves.retire,
    adapters_moves.pin,
    adapters_moves.unpin,
):
    app.command()(move)

Model = Annotated[str, typer.Argument(help="A version: NAME:7, NAME@ALIAS, or NAME for what is live.")]


@app.command("list")
def list_adapters() -> None:
    """Show every adapter with the versions its aliases point at."""
    control = open_control(load(os.environ))
    pointed: dict[str, list[str]] = {}
    for alias in control.adapters.aliases():
        pointed.setdefault(alias.name, []).append(f"{alias.alias}→{alias.number}")
    counts: dict[str, list[str]] = {}
    for version in control.adapters.list():
        counts.setdefault(version.name, []).append(f"{version.number}:{version.state}")
    rows = ((name, " ".join(pointed.get(name, [])), " ".join(found[-8:])) for name, found in sorted(counts.items()))
    table("Adapters", ("name", "aliases", "versions (newest last)"), rows)


@app.command()
def show(name: Name) -> None:
    """Show an adapter's versions, aliases, what was seen of them, and history."""
    control = open_control(load(os.environ))
    versions = control.adapters.list(name)
    if not versions:
        raise NotFound(f"There is no adapter {name!r}; `graftline adapters list` shows those there are.")
    columns = ("version", "state", "digest", "rank", "coverage", "labels", "source", "why not")
    table(name, columns, map(_version, versions))
    pointing = ((a.alias, a.number, a.previous, "pinned" if a.pinned else "") for a in control.adapters.aliases(name))
    table("Aliases", ("alias", "version", "before", ""), pointing)
    seen = (e for v in versions[-4:] for e in control.registry.evidence(name, v.number))
    table("Evidence", ("version", "check", "where", "passed", "found", "by"), map(_seen, seen))
    history = (
        (when(a.at), a.who, a.action, a.subject, a.before, a.after, a.why) for a in control.adapters.audit(name, 20)
    )
    table("History", ("when (UTC)", "who", "action", "what", "from", "to", "why"), history)


@app.command()
def verify(model: Model) -> None:
    """Read a version's stored bytes again, and compare them with their digest and their signature."""
    control = open_control(load(os.environ))
    version = control.registry.resolve_name(model)
    folder = control.registry.verify(version.name, version.number)
    say(f"{version.name}:{version.number} is intact: {version.digest} in {folder}")


@app.command()
def diff(before: Model, after: Model) -> None:
    """Show what changed from one version to another: config, what is carried, and each module's update."""
    registry = open_control(load(os.environ)).registry
    old, new = (registry.resolve_name(model) for model in (before, after))
    found = difference(registry.verify(old.name, old.number), registry.verify(new.name, new.number))
    changes = ((change.field, change.before, change.after) for change in (*found.config, *found.carried))
    table(f"{before} → {after}", ("field", "before", "after"), changes)
    rows = (
        (m.module, m.kind, f"{m.change:.4f}", f"{m.cosine:.4f}", f"{m.norm_before:.4g}", f"{m.norm_after:.4g}")
        for m in found.modules
    )
    table("Updates", ("module", "", "change", "cosine", "norm before", "norm after"), rows)


@app.command()
def export(
    model: Model,
    to: Annotated[str, typer.Argument(help="A new folder, or hub:ORG/NAME[@BRANCH].")],
    dry_run: DryRun = False,
) -> None:
    """Write a version as a plain PEFT folder with a model card and its lineage."""
    settings = load(os.environ)
    control = open_control(settings)
    version = control.registry.resolve_name(model)
    packed = parcel(control.registry, control.adapters, version.name, version.number)
    table(f"{version.name}:{version.number} → {to}", ("file", "bytes"), ((part.name, part.size) for part in packed))
    if not dry_run:
        say(deliver(packed, to, endpoint=settings.hub_endpoint))


def _version(found: Version) -> tuple[object, ...]:
    why_not = "; ".join(map(str, found.reasons))
    labels = " ".join(found.labels)
    return found.number, found.state, found.digest[:23], found.rank, found.coverage, labels, found.source, why_not


def _seen(found: Evidence) -> tuple[object, ...]:
    passed = "yes" if found.passed else "NO"
    return f"{found.name}:{found.number}", found.kind, found.subject, passed, finding(found), found.who
