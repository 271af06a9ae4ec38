"""What the store of an installation must hold, by the ledger of its clients; pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.report import Row
from loadtests.visitors import Fate, Thumb, Try

WINDOW_S = 0.050  # what ended so long before a kill -9, or later, may be lost; nothing else may
_ENDED = (Fate.ANSWERED, Fate.LEFT, Fate.UNREAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the installation says of an experiment: the route's document, the CLI's, and the stored completions' ids."""

    document: Mapping[str, Any]
    by_cli: Mapping[str, Any]
    stored: Collection[str]


def arms_of(tries: Iterable[Try]) -> dict[str, str]:
    """The arm of each unit's first try that had one."""
    found: dict[str, str] = {}
    for one in sorted(tries, key=lambda one: one.began):
        if one.arm:
            found.setdefault(one.unit, one.arm)
    return found


def stickiness(tries: Sequence[Try], words: Mapping[str, str]) -> list[Row]:
    """Every unit on one arm, by its answers' heads and by their words; `words` are what the arms say."""
    heads: dict[str, set[str]] = defaultdict(set)
    spoken: dict[str, set[str]] = defaultdict(set)
    lies = []
    for one in tries:
        if one.arm:
            heads[one.unit].add(one.arm)
        if one.fate is Fate.ANSWERED:
            spoken[one.unit].add(one.word or one.text)
            if words.get(one.arm) != one.word:
                lies.append(one)
    answered = sum(one.fate is Fate.ANSWERED for one in tries)
    return [
        Row(name="units seen on two arms, by the head", found=_several(heads), bound=0, note=f"{len(heads)} units"),
        Row(name="units seen on two arms, by the words", found=_several(spoken), bound=0, note=f"{answered} answers"),
        Row(name="answers in other words than their arm's", found=len(lies), bound=0, note=f"{lies[:1] or ''}"),
    ]


def counts(tries: Sequence[Try], said: Sequence[Thumb], told: Told, killed_at: float) -> list[Row]:
    """What is stored of each arm beside what its people know. A try that broke, or ended within the window of the kill,
    may be there or not, and is counted."""
    arm_of, theirs = arms_of(tries), told.document["counts"]
    found: dict[str, list[str]] = defaultdict(list)
    off: Counter[str] = Counter()

    def compare(what: str, arm: str, stored: int, least: int, most: int) -> None:
        off[what] += max(least - stored, stored - most, 0)
        found[what].append(f"{arm} {stored}" + (f" of {least}" if least == most else f" of {least} to {most}"))

    for arm, kept in theirs["arms"].items():
        ours = [one for one in tries if arm_of.get(one.unit) == arm]
        thumbs = [one.up for one in said if arm_of.get(one.unit) == arm]
        units = len({one.unit for one in ours})
        sent = sum(one.sent for one in ours)
        exposed = sum(one.headed and not _doomed(one.began, killed_at) for one in ours)
        ended = sum(one.fate in _ENDED and not _doomed(one.ended, killed_at) for one in ours)
        compare("units", arm, kept["units"], units, units)
        compare("exposures", arm, kept["exposures"], exposed, sent)
        compare("answers, retries included", arm, kept["requests"] + kept["retries"], ended, sent)
        compare("thumbs up", arm, kept["thumbs_up"], sum(thumbs), sum(thumbs))
        compare("thumbs down", arm, kept["thumbs_down"], len(thumbs) - sum(thumbs), len(thumbs) - sum(thumbs))
    rows = [
        Row(name=f"{what}: off the ledger by", found=count, bound=0, note=", ".join(found[what]))
        for what, count in off.items()
    ]
    lost = sum(_doomed(one.ended, killed_at) and one.fate in _ENDED for one in tries)
    broken = sum(one.sent and one.fate not in _ENDED for one in tries)
    odd = theirs["mixed_units"] + theirs["unnamed"] + theirs["unexposed"] + theirs["unknown_arm"]
    strange = {name: value for name, value in theirs.items() if name != "arms"}
    return [
        *rows,
        Row(name="mixed, unnamed, unexposed or of an unknown arm", found=odd, bound=0, note=f"{strange}"),
        Row(name="the CLI counts otherwise than the route", found=float(told.by_cli["counts"] != theirs), bound=0,
            note=f"{broken} tries broke; {lost} others ended within {WINDOW_S * 1e3:.0f} ms of the kill -9"),
    ]  # fmt: skip


def answers(tries: Sequence[Try], told: Told, killed_at: float) -> list[Row]:
    """Each answer's record by its id. Beyond the ledger there may be tries whose answer nobody read."""
    answered = {one.id: one for one in tries if one.fate is Fate.ANSWERED}
    missing = [one for name, one in answered.items() if name not in told.stored]
    late = [one for one in missing if _doomed(one.ended, killed_at)]
    unread = sum(one.sent and one.fate in (Fate.UNREAD, Fate.LOST) for one in tries)
    unknown = len({*told.stored} - {one.id for one in tries if one.id})
    fates = Counter(str(one.fate) for one in tries)
    return [
        Row(name="answers whose record is missing", found=len(missing) - len(late), bound=0,
            note=f"of {len(answered)}, besides {len(late)} within {WINDOW_S * 1e3:.0f} ms of the kill -9"),
        Row(name="records that no client knows", found=max(unknown - unread, 0), bound=0,
            note=f"{unknown} answers that nobody read; tries: {dict(sorted(fates.items()))}"),
    ]  # fmt: skip


def rates(said: Sequence[Thumb], unsaid: Sequence[str], level: Mapping[str, Any]) -> list[Row]:
    """The share of thumbs that are up, by arm: the estimate's is a fraction of the same two whole numbers."""
    off = 0.0
    for arm in ("control", "treatment"):
        given = [one.up for one in said if one.arm == arm]
        off += abs(float(level.get(arm) or 0.0) - sum(given) / max(len(given), 1))
    return [
        Row(name="thumbs that got no 200", found=len(unsaid), bound=0, note=f"of {len(said)}; {unsaid[:1] or ''}"),
        Row(name="rates in the estimate: off the ledger's by", found=off, bound=1e-9),
    ]


def _doomed(moment: float, killed_at: float) -> bool:
    return killed_at - WINDOW_S <= moment <= killed_at + WINDOW_S


def _several(found: Mapping[str, set[str]]) -> int:
    return sum(len(each) > 1 for each in found.values())
