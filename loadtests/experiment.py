"""`make experiment`: A/B tests on real vLLM, looked at from outside. Is every unit on one arm, is every count right?

Marker adapters answer each with a word of their own, and people like the words differently: so the words say who is in
which arm, and what the estimates should be. Four experiments on one alias, one after another:

- counted: 400 people converse while the gateway is restarted and killed; the store is held against their ledger.
- better: the treatment is promoted by itself, and clients see it without a change.
- swapped: control and treatment change places; the estimate's sign must flip.
- bad: the treatment is rolled back by itself under traffic; no request may fail.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from loadtests import arms, control, ledger
from loadtests.markers import files, markers, packed, varied
from loadtests.report import Row, report
from loadtests.stack import Up, stack, up, wait_for
from loadtests.visitors import PATIENT, Fate, Try, Visitors, Way

NAME = "support"
BODY = {"model": NAME, "temperature": 0, "max_tokens": 12}
LIKES = {"alpha": 0.3, "bravo": 0.8, "charlie": 0.1}
EFFECT_MIN = 0.4
UNITS, TURNS = 400, 4
WINDOW_S = 100.0  # of the counted one: all of a person's turns lie within it
SOON_S = 4.0
DECIDED_S = 120.0
SEEN_S = 2.0  # gateways see a decision within this time
WAYS = {Way.PLAIN: 0.4, Way.STREAM: 0.35, Way.AGAIN: 0.15, Way.LEFT: 0.1}
PRIMARY, RATED, GUARD = "thumbs_up_rate", "thumbs_rate", "not_worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The installation, and the version number of each word."""

    up: Up
    numbers: Mapping[str, int]

    def visitors(self, phase: str, ways: Mapping[Way, float] = PATIENT) -> Visitors:
        metadata = {"phase": phase}
        return Visitors(port=self.up.port, key=self.up.key, body=BODY, likes=LIKES, metadata=metadata, ways=ways)

    def pair(self, control: str, treatment: str) -> tuple[int, int]:
        return self.numbers[control], self.numbers[treatment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """When the gateway was told to end, and was back; when it was killed, and was back. Unix times."""

    told_at: float
    back_at: float
    killed_at: float
    alive_at: float


def main() -> int:
    words = tuple(LIKES)
    content = {word: files(folder) for word, folder in markers(words).items()}
    began = time.time()
    with stack(experiment_every_s="1") as running:
        ours = up(running)
        numbers = {}
        for word in words:
            answer = control.upload(ours, NAME, packed(varied(content[word], 30_000)), wait_s=120)
            if answer.document.get("state") != "verified":
                raise SystemExit(f"{word} was not taken: {answer.status} {answer.document}")
            numbers[word] = int(answer.document["number"])
        _point(ours, numbers["alpha"])
        print(f"Ready after {time.time() - began:.0f} s; 400 people converse …")
        house = House(up=ours, numbers=numbers)
        rows, effect = counted(house)
        rows += better(house)
        rows += swapped(house, effect)
        rows += bad(house)
        rows.append(Row(name="took, start of the engine included", found=time.time() - began, bound=900, unit="s"))
    return report("Experiments on real vLLM", rows)


def counted(house: House) -> tuple[list[Row], float]:
    """The table of the counted one, and its estimate."""
    metrics = (
        {"name": PRIMARY, "role": "primary", "window_s": WINDOW_S},
        {"name": RATED, "role": "diagnostic", "window_s": WINDOW_S},
        {"name": "error_rate", "role": "diagnostic", "window_s": WINDOW_S},
    )
    pair = house.pair("alpha", "bravo")
    # Nothing is promoted for an hour, for then half of the people would change over.
    id_ = arms.opened(house.up, NAME, pair, metrics=metrics, horizon=UNITS, promote_after_s=3600)
    time.sleep(SEEN_S)
    people = house.visitors("counted", ways=WAYS)
    with ThreadPoolExecutor(1) as aside:
        faults = aside.submit(_faults, house.up, people)
        people.rounds([f"user-{n}" for n in range(UNITS)], TURNS)
        struck = faults.result()
    answered = {one.id for one in people.tries if one.fate is Fate.ANSWERED}
    print(f"{len(people.tries)} tries in {people.tries[-1].ended - people.tries[0].began:.0f} s; windows close …")
    document, settled = arms.until(house.up, id_, _all_settled, timeout_s=WINDOW_S + 60)
    told = ledger.Told(
        document=arms.shown(house.up, id_, counts=True),
        by_cli=arms.shown_by_cli(house.up, id_),
        stored=arms.stored_with(house.up, {"phase": "counted"}, answered),
    )
    arms.stopped(house.up, id_)
    estimate, rated = arms.estimate(document, PRIMARY), arms.estimate(document, RATED)
    rows = [
        Row(name="counted: units", found=sum(document["units"].values()), bound=UNITS, kind="least"),
        Row(name="  units whose window has closed", found=float(settled), bound=1, kind="least"),
        *ledger.stickiness(people.tries, {"control": "alpha", "treatment": "bravo"}),
        *ledger.counts(people.tries, people.thumbs, told, struck.killed_at),
        *ledger.answers(people.tries, told, struck.killed_at),
        *ledger.rates(people.thumbs, people.unsaid, rated),
        *_struck(people.tries, struck),
        _spread(people.tries),
    ]
    effect = float(rated.get("estimate") or 0.0)
    note = f"of all requests {_said(estimate)}"
    rows.append(Row(name="estimate: up, of the thumbs given", found=effect, bound=EFFECT_MIN, kind="least", note=note))
    return rows, effect


def better(house: House) -> list[Row]:
    """Control alpha, treatment bravo, and nobody to help."""
    pair = house.pair("alpha", "bravo")
    metrics = (*_soon(), {"name": "error_rate", "role": "guardrail", "margin": 0.1, "window_s": SOON_S})
    id_ = arms.opened(house.up, NAME, pair, metrics=metrics, horizon=UNITS)
    people, began = house.visitors("better"), time.time()
    with people.crowd("better"):
        document, promoted = arms.until(house.up, id_, _ended, timeout_s=DECIDED_S)
        took, decided = time.time() - began, time.time()
        time.sleep(SEEN_S + 5)
    before = ledger.arms_of(people.tries)
    after = [one for one in people.tries if one.began > decided + SEEN_S]
    changed = {one.unit for one in after if one.word == "bravo" and before.get(one.unit) == "control"}
    other = [one for one in after if one.word != "bravo" or one.arm or one.number != pair[1]]
    stage = str(document["stage"])
    return [
        Row(name="better: promoted by itself", found=float(promoted and stage == "promoted"), bound=1, kind="least",
            note=f"{stage} after {took:.0f} s, {_said(arms.estimate(document, PRIMARY))}"),
        Row(name="the alias is at the wrong version", bound=0,
            found=float(arms.points_at(house.up, NAME) != pair[1])),
        Row(name="failed requests", found=_failed(people.tries), bound=0, note=f"of {len(people.tries)}"),
        Row(name="answers not by it afterwards", found=len(other), bound=0, note=f"of {len(after)}; {other[:1] or ''}"),
        Row(name="people of the control who see it, their request unchanged", found=len(changed), bound=1,
            kind="least"),
    ]  # fmt: skip


def swapped(house: House, effect: float) -> list[Row]:
    """Control bravo, treatment alpha: what was better by so much is now worse by as much."""
    rated = {"name": RATED, "role": "diagnostic", "window_s": SOON_S}
    id_ = arms.opened(house.up, NAME, house.pair("bravo", "alpha"), metrics=(*_soon(), rated), horizon=UNITS)
    people = house.visitors("swapped")
    with people.crowd("swapped"):
        document, known = arms.until(house.up, id_, _enough, timeout_s=DECIDED_S)
    arms.stopped(house.up, id_)
    estimate = arms.estimate(document, PRIMARY)
    found, upper = float(arms.estimate(document, RATED).get("estimate") or 0.0), estimate.get("upper")
    flipped = known and effect > 0 and upper is not None and upper < 0
    return [
        Row(name="swapped: the estimate's sign flips", found=float(flipped), bound=1, kind="least",
            note=_said(estimate)),
        Row(name="the two estimates add up to", found=abs(effect + found), bound=0.2,
            note=f"{effect:+.3f} and {found:+.3f}, of the thumbs given"),
        Row(name="failed requests", found=_failed(people.tries), bound=0, note=f"of {len(people.tries)}"),
    ]  # fmt: skip


def bad(house: House) -> list[Row]:
    """Control bravo, treatment charlie, which nobody likes."""
    pair = house.pair("bravo", "charlie")
    guard = {"name": GUARD, "source": PRIMARY, "role": "guardrail", "margin": 0.1, "window_s": SOON_S}
    id_ = arms.opened(house.up, NAME, pair, metrics=(*_soon(), guard), horizon=UNITS)
    people, began = house.visitors("bad"), time.time()
    with people.crowd("bad"):
        document, ended = arms.until(house.up, id_, _ended, timeout_s=DECIDED_S)
        took, decided = time.time() - began, time.time()
        time.sleep(SEEN_S + 5)
    after = [one for one in people.tries if one.began > decided + SEEN_S]
    other = [one for one in after if one.word != "bravo" or one.arm]
    met = len({one.unit for one in people.tries if one.word == "charlie"})
    stage = str(document["stage"])
    return [
        Row(name="bad: rolled back by itself", found=float(ended and stage == "rolled_back"), bound=1, kind="least",
            note=f"{stage} after {took:.0f} s, {_said(arms.estimate(document, GUARD))}"),
        Row(name="failed requests", found=_failed(people.tries), bound=0,
            note=f"of {len(people.tries)}, {met} people met it"),
        Row(name="the alias is at the wrong version", bound=0,
            found=float(arms.points_at(house.up, NAME) != pair[0])),
        Row(name="answers not by the control afterwards", found=len(other), bound=0,
            note=f"of {len(after)}; {other[:1] or ''}"),
    ]  # fmt: skip


def _soon() -> tuple[dict[str, object], ...]:
    return ({"name": PRIMARY, "role": "primary", "window_s": SOON_S},)


def _all_settled(document: arms.Document) -> bool:
    return bool(sum((document.get("settled") or {}).values()) >= UNITS)


def _ended(document: arms.Document) -> bool:
    return str(document["stage"]) not in ("running", "promoting")


def _enough(document: arms.Document) -> bool:
    """There are bounds, which takes 100 settled units an arm."""
    return arms.estimate(document, PRIMARY).get("upper") is not None


def _said(estimate: arms.Document) -> str:
    if estimate.get("lower") is None:
        return "no estimate yet"
    return "{estimate:+.3f}, between {lower:+.3f} and {upper:+.3f}, {units} units".format(**estimate)


def _failed(tries: list[Try]) -> int:
    return sum(one.fate in (Fate.LOST, Fate.REFUSED) for one in tries)


def _spread(tries: list[Try]) -> Row:
    """Were it longer than the window, the store would rightly leave the last thumbs out."""
    first: dict[str, float] = {}
    longest = 0.0
    for one in sorted(tries, key=lambda one: one.began):
        longest = max(longest, one.ended - first.setdefault(one.unit, one.began))
    return Row(name="somebody's first request to their last", found=longest, bound=WINDOW_S - 2, unit="s")


def _struck(tries: list[Try], struck: Faults) -> list[Row]:
    """What clients felt of the two ends of the gateway."""
    cut = [one for one in tries if one.fate is Fate.LOST and one.headed and one.ended < struck.killed_at - 0.5]
    broken = [one for one in tries if one.fate in (Fate.LOST, Fate.REFUSED)]
    killed = [one for one in broken if one.began < struck.killed_at < one.ended]
    again = sum(one.retry > 0 and one.fate is Fate.ANSWERED for one in tries)
    return [
        Row(name="answers that the graceful restart cut", found=len(cut), bound=0,
            note=f"back after {struck.back_at - struck.told_at:.1f} s"),
        Row(name="requests that the kill -9 broke", found=len(killed), bound=1, kind="least",
            note=f"back after {struck.alive_at - struck.killed_at:.1f} s; {again} answers came to a retry"),
    ]  # fmt: skip


def _faults(ours: Up, people: Visitors) -> Faults:
    """A graceful restart in the middle of the second round, a kill -9 in the middle of the third."""
    told_at, back_at = _end(ours, people, UNITS * 3 // 2, signal.SIGTERM)
    killed_at, alive_at = _end(ours, people, UNITS * 5 // 2, signal.SIGKILL)
    return Faults(told_at=told_at, back_at=back_at, killed_at=killed_at, alive_at=alive_at)


def _end(ours: Up, people: Visitors, after: int, how: signal.Signals) -> tuple[float, float]:
    until = time.monotonic() + 300
    while people.done < after:
        if time.monotonic() > until:
            raise TimeoutError(f"{people.done} of {after} turns were taken")
        time.sleep(0.01)
    pid = int(ours.child("gateway")["pid"])
    at = time.time()
    os.kill(pid, how)
    while _lives(pid):
        time.sleep(0.01)
    wait_for(f"{ours.url}/healthz", timeout_s=90)
    return at, time.time()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _point(ours: Up, number: int) -> None:
    answer = control.promote(ours, NAME, number)
    if answer.status != 200:
        raise SystemExit(f"The alias was not moved: {answer.status} {answer.document}")


if __name__ == "__main__":
    sys.exit(main())
