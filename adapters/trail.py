"""Audit rows, and the words in which a refusal says who moved what and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.values import Alias, Audit, Evidence, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who changes something, why, and when."""

    who: str
    why: str
    at: float


def subject(version: Version) -> str:
    """How an audit row names a version."""
    return f"{version.name}:{version.number}"


def step(before: Version | None, after: Version, by: By) -> Audit:
    return Audit(
        at=by.at,
        who=by.who,
        action=str(after.state) if before else "registered",
        subject=subject(after),
        before=str(before.state) if before else "",
        after=str(after.state),
        why=by.why,
    )


def pointing(before: Alias | None, after: Alias) -> Audit:
    return Audit(
        at=after.moved_at,
        who=after.moved_by,
        action="pointed",
        subject=f"{after.name}@{after.alias}",
        before=str(before.number) if before else "",
        after=str(after.number),
        why=after.why,
    )


def overriding(version: Version, at: str, override: Evidence, by: By) -> Audit:
    return Audit(
        at=by.at,
        who=by.who,
        action="overrode",
        subject=subject(version),
        before="",
        after=at,
        why=str(override.body.get("why", "")),
    )


def taken_down(alias: Alias, by: By) -> Audit:
    name = f"{alias.name}@{alias.alias}"
    return Audit(
        at=by.at, who=by.who, action="taken_down", subject=name, before=str(alias.number), after="", why=by.why
    )


def at(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"


def moved_by(last: Audit | None) -> str:
    return f": {last.who} made it so at {time(last.at)}" if last else ""


def time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
