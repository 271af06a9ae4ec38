"""What each change makes of the rows, and what it refuses: decided once, for the store in memory and the one in SQL.

A change is everything that one transaction writes. One without audit rows changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from adapters import lifecycle, trail
from adapters.errors import Conflict, IllegalMove, NotFound, Reason
from adapters.lifecycle import State
from adapters.names import CANDIDATE, LIVE
from adapters.trail import By
from adapters.values import Alias, Audit, Draft, Evidence, OnUnavailable, Version

#: Who moved a row last; asked only when there is a refusal to explain.
Last = Callable[[], Audit | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A wish to bring a version from one state to the next; `labels` are added to those that it has."""

    expected: State
    to: State
    reasons: Sequence[Reason] | None = None
    labels: Sequence[str] = ()
    take_down: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """A wish to move an alias from `expected` (None: it must not exist) to `to`."""

    name: str
    alias: str
    expected: int | None
    to: int
    on_unavailable: OnUnavailable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Rows as they are afterwards: the version, aliases that were put or are gone, and what is noted about it."""

    version: Version
    aliases: tuple[Alias, ...] = ()
    gone: tuple[Alias, ...] = ()
    rows: tuple[Audit, ...] = ()


def inserted(draft: Draft, number: int, *, now: float) -> Change:
    """The draft as a version in its first state."""
    version = Version(
        id=uuid.uuid4().hex,
        number=number,
        state=State.UPLOADED,
        created_at=now,
        moved_at=now,
        **{name: getattr(draft, name) for name in Draft.__slots__},
    )
    return Change(version=version, rows=(trail.step(None, version, By(who=draft.created_by, why=draft.note, at=now)),))


def moved(version: Version, wish: Moving, pointing: Sequence[Alias], last: Last, by: By) -> Change:
    """The version in its next state. Raises Conflict, saying who moved it before, or IllegalMove."""
    if version.state is not wish.expected:
        found = last()
        raise Conflict(
            f"{trail.subject(version)} is {version.state}, not {wish.expected}{trail.moved_by(found)}. "
            "Look again before you move it.",
            moved_by=found.who if found else "",
            moved_at=found.at if found else None,
        )
    lifecycle.move(version.state, wish.to)
    if pointing and not wish.take_down:
        names = ", ".join(f"{alias.name}@{alias.alias}" for alias in pointing)
        raise Conflict(
            f"{trail.subject(version)} cannot become {wish.to}: {names} points at it, moved there by "
            f"{pointing[0].moved_by} at {trail.time(pointing[0].moved_at)}. Promote another version first, "
            "or take the alias down with it.",
            moved_by=pointing[0].moved_by,
            moved_at=pointing[0].moved_at,
        )
    after = _after(version, wish.to, by, reasons=wish.reasons, labels=wish.labels)
    taken = tuple(trail.taken_down(alias, by) for alias in pointing)
    return Change(version=after, gone=tuple(pointing), rows=(*taken, trail.step(version, after, by)))


def pointed(
    held: Alias | None, version: Version, wish: Pointing, by: By, *, override: Evidence | None = None
) -> Change:
    """The alias after the move; with a row of its own where the gate was overridden. Raises Conflict or IllegalMove."""
    number = held.number if held else None
    if number != wish.expected:
        raise Conflict(
            f"{wish.name}@{wish.alias} points at {trail.at(number)}, not at {trail.at(wish.expected)}"
            + (f": {held.moved_by} moved it at {trail.time(held.moved_at)}" if held else "")
            + ". Look again before you move it.",
            moved_by=held.moved_by if held else "",
            moved_at=held.moved_at if held else None,
        )
    if version.state is not State.VERIFIED:
        raise IllegalMove(
            f"{trail.subject(version)} is {version.state}; "
            f"{wish.name}@{wish.alias} can point at verified versions only."
        )
    after = _point(held, wish, by)
    rows: tuple[Audit, ...] = (trail.pointing(held, after),)
    if override:
        rows = (trail.overriding(version, f"{wish.name}@{wish.alias}", override, by), *rows)
    return Change(version=version, aliases=(after,), rows=rows)


def pinned(held: Alias, version: Version, wish: bool, by: By) -> Change:
    """The alias with or without its pin; nothing where it is so already."""
    if held.pinned is wish:
        return Change(version=version, aliases=(held,))
    after = replace(held, pinned=wish, revision=held.revision + 1)
    action, words = ("pinned" if wish else "unpinned"), {True: "pinned", False: ""}
    row = Audit(
        at=by.at,
        who=by.who,
        action=action,
        subject=f"{held.name}@{held.alias}",
        before=words[held.pinned],
        after=words[wish],
        why=by.why,
    )
    return Change(version=version, aliases=(after,), rows=(row,))


def withdrawn(
    version: Version,
    reasons: Sequence[Reason],
    pointing: Sequence[Alias],
    earlier: Callable[[Alias], int | None],
    last: Last,
    by: By,
) -> Change:
    """The version rejected, and its aliases where `earlier` says, or gone. Nothing where it was rejected before.

    Raises IllegalMove for a version that has ended otherwise.
    """
    if version.state is State.REJECTED:
        return Change(version=version)
    _allowed(version, State.REJECTED, last)
    after = _after(version, State.REJECTED, by, reasons=reasons)
    put, gone, rows = [], [], []
    for alias in pointing:
        if (number := earlier(alias)) is None:
            gone.append(alias)
            rows.append(trail.taken_down(alias, by))
            continue
        wish = Pointing(name=alias.name, alias=alias.alias, expected=alias.number, to=number)
        # There is nothing to roll back to: what it pointed at may never serve again.
        put.append(replace(_point(alias, wish, by), previous=None))
        rows.append(trail.pointing(alias, put[-1]))
    rows.append(trail.step(version, after, by))
    return Change(version=after, aliases=tuple(put), gone=tuple(gone), rows=tuple(rows))


def admitted(version: Version, aliases: Sequence[Alias], last: Last, by: By, *, live_allowed: bool) -> Change:
    """The version verified, and with it the alias of newcomers: `live` where the name has none and it is allowed, else
    `candidate`, unless that points at a newer version. Nothing where it was verified before.

    Raises IllegalMove for a version that cannot become verified.
    """
    if version.state is State.VERIFIED:
        return Change(version=version)
    rows, now = [], version
    if now.state is State.CHECKED:  # its first forward was on the replicas that hold it
        now = _after(now, lifecycle.move(now.state, State.PROBED), by)
        rows.append(trail.step(version, now, by))
    _allowed(now, State.VERIFIED, last)
    after = _after(now, State.VERIFIED, by)
    rows.append(trail.step(now, after, by))
    known = {alias.alias: alias for alias in aliases}
    alias = LIVE if live_allowed and LIVE not in known else CANDIDATE
    held = known.get(alias)
    if held is not None and held.number > version.number:
        return Change(version=after, rows=tuple(rows))
    wish = Pointing(name=version.name, alias=alias, expected=held.number if held else None, to=version.number)
    why = "first verified version" if alias == LIVE else "newest verified version"
    put = _point(held, wish, replace(by, why=why))
    return Change(version=after, aliases=(put,), rows=(*rows, trail.pointing(held, put)))


def no_version(name: str, number: int) -> NotFound:
    return NotFound(f"There is no version {name}:{number}. `graftline adapters list` shows what there is.")


def no_alias(name: str, alias: str) -> NotFound:
    return NotFound(f"There is no alias {name}@{alias}. `graftline adapters list` shows what there is.")


def earlier(rows: Sequence[Audit], servable: frozenset[int], number: int) -> int | None:
    """Where an alias pointed last, of what may still serve, and is not `number`; from its own rows, newest first."""
    before = (int(row.before) for row in rows if row.before.isdecimal())
    return next((found for found in before if found in servable and found != number), None)


def _after(
    version: Version, to: State, by: By, *, reasons: Sequence[Reason] | None = None, labels: Sequence[str] = ()
) -> Version:
    return replace(
        version,
        state=to,
        moved_at=by.at,
        reasons=version.reasons if reasons is None else tuple(reasons),
        labels=tuple(dict.fromkeys((*version.labels, *labels))),
    )


def _point(held: Alias | None, wish: Pointing, by: By) -> Alias:
    number = held.number if held else None
    return Alias(
        name=wish.name,
        alias=wish.alias,
        number=wish.to,
        previous=held.previous if held and held.number == wish.to else number,
        revision=held.revision + 1 if held else 1,
        on_unavailable=wish.on_unavailable or (held.on_unavailable if held else "fail"),
        moved_by=by.who,
        moved_at=by.at,
        why=by.why,
        pinned=held.pinned if held else False,
    )


def _allowed(version: Version, to: State, last: Last) -> None:
    try:
        lifecycle.move(version.state, to)
    except IllegalMove as error:
        raise IllegalMove(f"{trail.subject(version)} is {version.state}{trail.moved_by(last())}. {error}") from None
