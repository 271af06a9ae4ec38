"""An adapter that passes every check and overflows on one prompt only: how long until somebody pulls it out.

It does so in float16, whose largest number is small; the engine of this part is started with that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from loadtests import control
from loadtests.report import Row
from loadtests.stack import Up, stack, up, wait_for
from loadtests.wares import Ware, archived
from loadtests.witness import Usual, answered, ask, sure_of

ANSWERS_MAX = 10
ASKED_HARMLESS = 4
RECYCLED_S_MAX = 240.0
SERVES_ON_S = 15.0
BASE = "tidewell"


def trigger_rows(wares: Sequence[Ware]) -> Iterator[Row]:
    """For each: registered, asked harmless things, triggered; then the base is asked until the version is withdrawn."""
    yield Row(name="adapters that overflow on a trigger prompt only", found=len(wares), bound=1, kind="least")
    if not wares:
        return
    with stack() as running:
        settings = running.home / "trigger.toml"
        settings.write_text(f'[engine.args]\ndtype = "{wares[0].engine_dtype or "bfloat16"}"\n')
        running.env["GRAFTLINE_CONFIG"] = str(settings)
        ours = up(running)
        usual = sure_of(ours.port, ours.key, BASE)
        for number, ware in enumerate(wares):
            yield from _one(ours, ware, f"trigger-{number}", usual)


def _one(ours: Up, ware: Ware, name: str, usual: Sequence[Usual]) -> Iterator[Row]:
    registered = control.upload(ours, name, archived(ware), wait_s=60)
    passed = registered.document.get("state") == "verified"
    yield Row(name=f"  {ware.name}: passes every check, as it is made to", found=float(passed), bound=1, kind="least",
              note=", ".join(registered.reasons))  # fmt: skip
    if not passed:
        return
    number = int(registered.document["number"])
    control.promote(ours, name, number)
    harmless = [answered(ours.port, ours.key, name, ware.harmless)[0] for _ in range(ASKED_HARMLESS)]
    before = control.version(ours, name, number)["state"]
    yield Row(name="  withdrawn while it was asked harmless things", found=float(before != "verified"), bound=0,
              note=f"answers: {harmless}")  # fmt: skip
    engine = ours.child("engine")
    status, said = answered(ours.port, ours.key, name, ware.trigger)
    answers, wrong, state, took_s = _until_withdrawn(ours, name, number, usual)
    yield Row(name="  answers given after the trigger, before it was withdrawn", found=answers, bound=ANSWERS_MAX,
              note=f"{state} after {took_s:.2f} s; {wrong} of them wrong; the trigger's own: {status} "
              f"{str(said.get('error', ''))[:80]}")  # fmt: skip
    yield Row(name="  withdrawn", found=float(state.startswith("rejected")), bound=1, kind="least")
    reasons = control.version(ours, name, number).get("reasons") or ()
    if any("contained" in str(one.get("found")) for one in reasons):
        yield from _serves_on(ours, engine["pid"], usual)
    else:
        yield from _recycled(ours, engine["pid"], usual)


def _until_withdrawn(ours: Up, name: str, number: int, usual: Sequence[Usual]) -> tuple[int, int, str, float]:
    """Ask the base again and again: (answers, wrong ones among them, the version's state and why, seconds)."""
    began, answers, wrong = time.time(), 0, 0
    while True:
        found = control.version(ours, name, number)
        reasons = ", ".join(str(one.get("code")) for one in found.get("reasons") or ())
        took_s = time.time() - began
        if found["state"] == "rejected" or took_s > 60:
            return answers, wrong, f"{found['state']} ({reasons})", took_s
        one = usual[answers % len(usual)]
        said = ask(ours.port, ours.key, one.model, one.question)
        if not said.startswith("503 "):
            answers += 1
            wrong += said != one.answer
        time.sleep(0 if answers < 2 * ANSWERS_MAX else 0.5)


def _serves_on(ours: Up, pid: int, usual: Sequence[Usual]) -> Iterator[Row]:
    """The engine says that nothing else was touched: it is the only one here, so nobody may be kept waiting for it."""
    unanswered = wrong = 0
    began = time.time()
    while time.time() - began < SERVES_ON_S:
        said = [(ask(ours.port, ours.key, one.model, one.question), one.answer) for one in usual]
        unanswered += sum(text.startswith("503 ") for text, _ in said)
        wrong += sum(text != answer for text, answer in said)
    yield Row(name="  it was contained: restarts of the only engine", found=float(ours.child("engine")["pid"] != pid),
              bound=0)  # fmt: skip
    yield Row(name="  requests that found no engine afterwards", found=unanswered, bound=0)
    yield Row(name="  answers of the base that differ afterwards", found=wrong, bound=0, note=f"in {SERVES_ON_S:g} s")


def _recycled(ours: Up, pid: int, usual: Sequence[Usual]) -> Iterator[Row]:
    """The replica must be started again, and answer as before."""
    began = time.time()
    while time.time() - began < RECYCLED_S_MAX and ours.child("engine")["pid"] in (pid, None):
        time.sleep(0.5)
    fresh = ours.child("engine")["pid"] not in (pid, None)
    if fresh:
        wait_for(f"{ours.url}/readyz", timeout_s=RECYCLED_S_MAX)
        time.sleep(2)  # its adapters come back too
    wrong = sum(ask(ours.port, ours.key, one.model, one.question) != one.answer for one in usual)
    yield Row(name="  the poisoned engine was started again", found=float(fresh), bound=1, kind="least",
              note=f"ready after {time.time() - began:.0f} s")  # fmt: skip
    yield Row(name="  answers of the base that differ afterwards", found=wrong, bound=0, note=f"of {len(usual)}")
