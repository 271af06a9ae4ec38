"""`make hostile`: every broken adapter that we know of is sent to a running installation; nobody else may feel it.

Four parts on one installation, then a control. No false alarms: good adapters of all kinds register. Calm: the base and
a good marker are asked over and over with nothing else going on, which says how often answers differ by themselves.
Trial: the same questions while the corpus is sent, archive by archive. Trigger: an adapter that passes every check and
overflows on one prompt only. Control: bare vLLM is given the same folders and asked the same questions.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtests import control
from loadtests.markers import files, markers, packed, spoken, varied
from loadtests.poison import poisoned_rows
from loadtests.report import Row, report
from loadtests.stack import Up, stack, up
from loadtests.streams import percentile
from loadtests.trigger import trigger_rows
from loadtests.wares import Ware, archived, bad_names, corpus, zoo
from loadtests.witness import Usual, Witness, sure_of

MODEL, GOOD, WORD = "tidewell", "good", "alpha"
BROKEN_MIN, KINDS_MIN, GOOD_MIN = 60, 25, 50
PER_S = 2.0
CALM_S = 40.0
RANK_MAX = "64"


@dataclass
class Trial:
    """What became of the corpus."""

    refused: list[tuple[Ware, control.Answered]] = field(default_factory=list)
    taken: list[tuple[Ware, control.Answered]] = field(default_factory=list)
    mistaken: list[tuple[Ware, control.Answered]] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)


def main() -> int:
    marker = files(markers((WORD,))[WORD])
    with tempfile.TemporaryDirectory(prefix="graftline-hostile-") as scratch:
        broken, good = corpus(Path(scratch)), zoo(Path(scratch))
        bare = [one for one in broken if one.stage != "tripwire"]
        triggers = [one for one in broken if one.stage == "tripwire"]
        rows = [
            Row(name="broken adapters", found=len(broken), bound=BROKEN_MIN, kind="least"),
            Row(name="  kinds", found=len({one.kind for one in broken}), bound=KINDS_MIN, kind="least"),
        ]
        with stack(engine_max_lora_rank=RANK_MAX) as running:
            ours = up(running)
            first = control.upload(ours, GOOD, packed(varied(marker, 40_000)), wait_s=120)
            if first.document.get("state") != "verified":
                raise SystemExit(f"The good marker was not taken: {first.status} {first.document}")
            usual = sure_of(ours.port, ours.key, MODEL)
            asked = [*usual, *(Usual(GOOD, one.question, spoken(WORD)) for one in usual[:8])]
            rows += [
                Row(name="prompts whose answer leads by 1 nat at every token", found=len(usual), bound=5, kind="least")
            ]
            rows += no_false_alarms(ours, good)
            calm = calm_of(ours, asked)
            rows += refusals(ours, bare, asked, calm)
            rows += bad_names_rows(ours, bad_names(Path(scratch)), packed(varied(marker, 40_001)))
        rows += trigger_rows(triggers)
        rows += poisoned_rows(bare, marker)
    return report("Hostile adapters", rows)


def no_false_alarms(ours: Up, good: Sequence[Ware]) -> Iterator[Row]:
    """Each good adapter must come to be verified."""
    alarms = []
    took: list[float] = []
    for one in good:
        answer = control.upload(ours, f"zoo-{one.name}"[:60], archived(one), wait_s=60)
        took.append(answer.seconds)
        if answer.document.get("state") != "verified":
            alarms.append(f"{one.name}: {answer.status} {', '.join(answer.reasons) or answer.document.get('state')}")
    yield Row(name="good adapters of all kinds", found=len(good), bound=GOOD_MIN, kind="least",
              note=f"{len({one.kind for one in good})} kinds; p50 {percentile(took, 0.5):.1f} s each")  # fmt: skip
    yield Row(name="  refused, or not verified", found=len(alarms), bound=0, note="; ".join(alarms[:6]))


def calm_of(ours: Up, asked: Sequence[Usual]) -> Witness:
    """The A/A control: nothing else happens."""
    with Witness(ours.port, ours.key, asked, per_s=PER_S) as witness:
        time.sleep(CALM_S)
    return witness


def refusals(ours: Up, broken: Sequence[Ware], asked: Sequence[Usual], calm: Witness) -> Iterator[Row]:
    """Send the corpus under the witness's eyes, for at least as long as the calm lasted."""
    trial = Trial()
    began = time.time()
    with Witness(ours.port, ours.key, asked, per_s=PER_S) as witness, _engine_watched(ours, trial):
        for number, one in enumerate(broken):
            _send(ours, trial, one, f"hostile-{number}")
        time.sleep(max(0.0, CALM_S - (time.time() - began)))
    log = _engine_log(ours)
    seen = sorted(name for name in trial.listed if name.startswith("hostile-"))
    logged = sum(f"hostile-{number}@" in log for number in range(len(broken)))
    share, calm_share = len(witness.differing) / max(1, witness.asked), len(calm.differing) / max(1, calm.asked)
    yield Row(name="broken adapters not refused", found=len(trial.taken), bound=0,
              note=f"of {len(broken)}; {'; '.join(_told(one) for one in trial.taken[:4])}")  # fmt: skip
    yield Row(name="  refused for another reason than theirs", found=len(trial.mistaken), bound=0,
              note="; ".join(_told(one) for one in trial.mistaken[:4]))  # fmt: skip
    yield Row(name="  seen by the engine (its list, 5 times a second; its log)", found=len(seen) + logged, bound=0,
              note=f"the good one was seen: {any(name.startswith(GOOD) for name in trial.listed)}")  # fmt: skip
    yield Row(name="answers that differ while they are tried", found=share * 100, bound=calm_share * 100, unit="%",
              note=f"{len(witness.differing)} of {witness.asked}; in the calm before {len(calm.differing)} of "
              f"{calm.asked}; {witness.differing[:1] or ''}")  # fmt: skip


def bad_names_rows(ours: Up, names: Sequence[str], archive: bytes) -> Iterator[Row]:
    """A good adapter under names that would break something."""
    taken = []
    for name in names:
        answer = control.upload(ours, name, archive, wait_s=0)
        if answer.status not in (400, 422):
            taken.append(f"{name[:20]!r}: {answer.status}")
    yield Row(name="names that nobody may have, taken", found=len(taken), bound=0, note=f"of {len(names)}; {taken[:3]}")


def _send(ours: Up, trial: Trial, one: Ware, name: str) -> None:
    answer = control.upload(ours, name, archived(one), wait_s=60)
    state = answer.document.get("state")
    if answer.status in (200, 201, 202) and state != "rejected":
        trial.taken.append((one, answer))
    elif answer.status >= 500 or not set(one.codes) & set(answer.reasons):
        trial.mistaken.append((one, answer))
    else:
        trial.refused.append((one, answer))


def _told(one: tuple[Ware, control.Answered]) -> str:
    ware, answer = one
    return f"{ware.name}: {answer.status} {', '.join(answer.reasons) or answer.document.get('state')} for {ware.codes}"


@contextmanager
def _engine_watched(ours: Up, trial: Trial) -> Iterator[None]:
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.2):
            trial.listed |= control.engine_adapters(ours)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def _engine_log(ours: Up) -> str:
    return "".join(path.read_text(errors="replace") for path in (ours.running.home / "logs").glob("engine*"))


if __name__ == "__main__":
    sys.exit(main())
