"""Which bytes nobody needs any more, and their deletion: rows first, files last, so that a crash leaves bytes only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from adapters.artifacts.local import Artifacts
from adapters.errors import Conflict, IllegalMove
from adapters.lifecycle import CURRENT, State
from adapters.store import Store
from adapters.values import Version

WHO = "gc"
#: Bytes younger than this are left alone: whoever put them there may not have said yet what they are for.
YOUNG_S = 3600.0
KEEP_S = 7 * 86400.0
_DAY_S = 86400.0


class Holder(Protocol):
    """Somebody who may need bytes that no version in service names."""

    def holds(self) -> Mapping[str, str]:
        """Digest → why it is needed. The digest, or the first 16 hexadecimal digits of it, as engine-side names have
        them. What cannot be known now must be raised, never left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of the bytes of one digest, and why. `versions` are those that have it, as `support:7`."""

    digest: str
    action: Literal["keep", "delete"]
    why: str
    versions: tuple[str, ...] = ()


def plan(
    versions: Iterable[Version],
    stored: Mapping[str, float],
    held: Mapping[str, str],
    *,
    now: float,
    keep_s: float = KEEP_S,
    young_s: float = YOUNG_S,
) -> tuple[Decision, ...]:
    """Decide on each digest that is stored, or that a version names which is not deleted; sorted by digest.

    `stored` says since when (unix s) bytes are there; `held` is what the holders say, all of them together.
    """
    named: dict[str, list[Version]] = {digest: [] for digest in stored}
    for version in versions:
        if version.digest in stored or version.state is not State.DELETED:
            named.setdefault(version.digest, []).append(version)
    decisions = []
    for digest, theirs in sorted(named.items()):
        since = stored.get(digest)
        needed = _serving(theirs, missing=since is None) or held.get(digest) or held.get(_short(digest))
        why = needed or _recent(theirs, now - keep_s) or _young(since, now, young_s)
        decisions.append(
            Decision(
                digest=digest,
                action="keep" if why else "delete",
                why=why or _unneeded(theirs, missing=since is None),
                versions=tuple(f"{version.name}:{version.number}" for version in theirs),
            )
        )
    return tuple(decisions)


def collect(
    store: Store,
    artifacts: Artifacts,
    holders: Sequence[Holder],
    *,
    dry_run: bool,
    young_s: float = YOUNG_S,
    keep_s: float = KEEP_S,
    clock: Callable[[], float] = time.time,
) -> tuple[Decision, ...]:
    """Delete the bytes that nobody needs; returns the decision on every digest. Raises what a holder or the store
    raises, and nothing is deleted after that. Doing it again goes on where it stopped."""

    def decide(versions: Iterable[Version], stored: Mapping[str, float]) -> tuple[Decision, ...]:
        return plan(versions, stored, _held(holders), now=clock(), keep_s=keep_s, young_s=young_s)

    decisions = decide(store.list(), artifacts.stored())
    if dry_run:
        return decisions
    done = []
    for decision in decisions:
        if decision.action == "delete":
            with artifacts.deleting():  # nobody is between committing bytes and naming them: look once more
                versions = store.by_digest(decision.digest)
                since = artifacts.since(decision.digest)
                again = next(iter(decide(versions, {} if since is None else {decision.digest: since})), decision)
                done.append(_delete(again, versions, store, artifacts) if again.action == "delete" else again)
        else:
            done.append(decision)
    artifacts.sweep()
    return tuple(done)


def _delete(decision: Decision, versions: Iterable[Version], store: Store, artifacts: Artifacts) -> Decision:
    try:
        for version in versions:
            if version.state is not State.DELETED:
                store.move(version.name, version.number, version.state, State.DELETED, who=WHO, why=decision.why)
    except (Conflict, IllegalMove) as error:
        return replace(decision, action="keep", why=str(error))
    artifacts.delete(decision.digest)
    return decision


def _serving(versions: Iterable[Version], *, missing: bool) -> str:
    current = [version for version in versions if version.state in CURRENT]
    if not current:
        return ""
    names = ", ".join(f"{version.name}:{version.number} is {version.state}" for version in current)
    return f"{names}, but its files are gone: register the folder again" if missing else names


def _recent(versions: Iterable[Version], before: float) -> str:
    ended = [version for version in versions if version.state in (State.RETIRED, State.REJECTED)]
    last = max(ended, key=lambda version: version.moved_at, default=None)
    if last is None or last.moved_at <= before:
        return ""
    days = (last.moved_at - before) / _DAY_S
    return f"{last.name}:{last.number} was {last.state} lately; its bytes are kept for {days:.1f} more days"


def _young(since: float | None, now: float, young_s: float) -> str:
    if since is None or now - since > young_s:
        return ""
    return f"put there {max(now - since, 0):.0f} s ago; what it is for may still be on its way"


def _unneeded(versions: Sequence[Version], *, missing: bool) -> str:
    if missing:
        return "its files are gone already, and nobody needs them"
    if not versions:
        return "no version has these bytes: what put them there did not finish"
    if all(version.state is State.DELETED for version in versions):
        return "its versions are deleted: a deletion did not finish"
    ended = ", ".join(f"{v.name}:{v.number} is {v.state}" for v in versions)
    return f"{ended}, and nobody needs it"


def _held(holders: Iterable[Holder]) -> dict[str, str]:
    held: dict[str, str] = {}
    for holder in holders:
        held.update(holder.holds())
    return held


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:16]
