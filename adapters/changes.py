"""What each change makes of a row, and what it refuses: decided once, for the store in memory and the one in SQL."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from adapters import lifecycle
from adapters.errors import Conflict, IllegalMove, NotFound, Reason
from adapters.lifecycle import State
from adapters.values import Alias, Audit, Draft, OnUnavailable, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """A wish to move an alias from `expected` (None: it must not exist) to `to`."""

    name: str
    alias: str
    expected: int | None
    to: int
    on_unavailable: OnUnavailable | None


def subject(version: Version) -> str:
    """How an audit row names a version."""
    return f"{version.name}:{version.number}"


def numbered(draft: Draft, number: int, *, now: float) -> Version:
    """The draft as a version in its first state."""
    return Version(
        id=uuid.uuid4().hex,
        name=draft.name,
        number=number,
        digest=draft.digest,
        state=State.UPLOADED,
        created_at=now,
        created_by=draft.created_by,
        base_digest=draft.base_digest,
        rank=draft.rank,
        alpha=draft.alpha,
        bytes=draft.bytes,
        coverage=draft.coverage,
        note=draft.note,
    )


def moved(
    version: Version,
    expected: State,
    to: State,
    reasons: Sequence[Reason] | None,
    pointing: Sequence[Alias],
    last: Audit | None,
    *,
    take_down: bool,
) -> Version:
    """The version in its next state. Raises Conflict or IllegalMove; `last` says who moved it before."""
    if version.state is not expected:
        raise Conflict(
            f"{subject(version)} is {version.state}, not {expected}{_moved(last)}. Look again before you move it.",
            moved_by=last.who if last else "",
            moved_at=last.at if last else None,
        )
    lifecycle.move(version.state, to)
    if pointing and not take_down:
        names = ", ".join(f"{alias.name}@{alias.alias}" for alias in pointing)
        raise Conflict(
            f"{subject(version)} cannot become {to}: {names} points at it, moved there by {pointing[0].moved_by} at "
            f"{_time(pointing[0].moved_at)}. Promote another version first, or take the alias down with it.",
            moved_by=pointing[0].moved_by,
            moved_at=pointing[0].moved_at,
        )
    return replace(version, state=to, reasons=version.reasons if reasons is None else tuple(reasons))


def pointed(held: Alias | None, version: Version, move: Pointing, *, who: str, why: str, now: float) -> Alias:
    """The alias after the move. Raises Conflict or IllegalMove."""
    number = held.number if held else None
    if number != move.expected:
        raise Conflict(
            f"{move.name}@{move.alias} points at {_at(number)}, not at {_at(move.expected)}"
            + (f": {held.moved_by} moved it at {_time(held.moved_at)}" if held else "")
            + ". Look again before you move it.",
            moved_by=held.moved_by if held else "",
            moved_at=held.moved_at if held else None,
        )
    if version.state is not State.VERIFIED:
        raise IllegalMove(
            f"{subject(version)} is {version.state}; {move.name}@{move.alias} can point at verified versions only."
        )
    previous = held.previous if held and held.number == move.to else number
    return Alias(
        name=move.name,
        alias=move.alias,
        number=move.to,
        previous=previous,
        revision=held.revision + 1 if held else 1,
        on_unavailable=move.on_unavailable or (held.on_unavailable if held else "fail"),
        moved_by=who,
        moved_at=now,
        why=why,
    )


def no_version(name: str, number: int) -> NotFound:
    return NotFound(f"There is no version {name}:{number}. `graftline adapters list` shows what there is.")


def no_alias(name: str, alias: str) -> NotFound:
    return NotFound(f"There is no alias {name}@{alias}. `graftline adapters list` shows what there is.")


def registered(version: Version) -> Audit:
    """The audit row of a new version."""
    return Audit(
        at=version.created_at,
        who=version.created_by,
        action="registered",
        subject=subject(version),
        before="",
        after=str(version.state),
        why=version.note,
    )


def moving(before: Version, after: Version, *, who: str, why: str, now: float) -> Audit:
    """The audit row of a version's step."""
    return Audit(
        at=now,
        who=who,
        action=str(after.state),
        subject=subject(after),
        before=str(before.state),
        after=str(after.state),
        why=why,
    )


def pointing(before: Alias | None, after: Alias) -> Audit:
    """The audit row of an alias's move."""
    return Audit(
        at=after.moved_at,
        who=after.moved_by,
        action="pointed",
        subject=f"{after.name}@{after.alias}",
        before=str(before.number) if before else "",
        after=str(after.number),
        why=after.why,
    )


def taken_down(alias: Alias, *, who: str, why: str, now: float) -> Audit:
    """The audit row of an alias that went with its version."""
    name = f"{alias.name}@{alias.alias}"
    return Audit(at=now, who=who, action="taken_down", subject=name, before=str(alias.number), after="", why=why)


def _at(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"


def _moved(last: Audit | None) -> str:
    return f": {last.who} made it so at {_time(last.at)}" if last else ""


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
