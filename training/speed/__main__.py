"""`make trainspeed`: SFT and DPO against a plain TRL script, packing, and the dataset compiler.

Exits with 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from training.speed.ratios import Ratio, Run, per_s, ratio

#: Tokens a CPU second of ours, at least so many times those of the plain script.
AGAINST_MIN: Final = 0.97
PACKED_MIN: Final = 1.5
_PARTS = ("sft", "dpo", "packing", "compiler")
#: Steps of one run: long enough that what is done once is a small part of it, as it is in any real run.
_STEPS = {"sft": 120, "dpo": 50}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m training.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="pairs of runs")
    parser.add_argument("--only", nargs="*", choices=_PARTS, default=_PARTS, help="these parts alone")
    parser.add_argument("--large", action="store_true", help="compile a million records as well")
    asked = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    missed: list[str] = []
    for part in asked.only:
        missed += _compiler(large=asked.large) if part == "compiler" else _trained(part, asked.rounds)
    sys.stdout.write("".join(f"missed: {each}\n" for each in missed))
    return 1 if missed else 0


def judged(name: str, found: Ratio, least: float, noise: Ratio | None) -> Iterator[str]:
    """What is wrong with a measured ratio. Noise that is no noise makes it worth nothing."""
    if found.mean < least:
        yield f"{name}: {found} times as fast, at least {least} wanted"
    if noise is not None and not noise.low <= 1 <= noise.high and abs(noise.mean - 1) > 1 - AGAINST_MIN:
        yield f"{name}: the same script against itself gives {noise}, so this machine is too restless to tell"


def _trained(part: str, rounds: int) -> list[str]:
    from datasets import disable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    from training.speed.against import against, packing

    disable_progress_bars()  # both sides' bars are longer than what is found
    disable_progress_bar()
    if part == "packing":
        # Where all rows are about as long there is little to fill, and no bound to hold packing to.
        runs = packing("questions", rounds=max(2, rounds // 2), count=640)
        _say("packing, rows of one length", runs, (("packed / filled", ratio(runs["packed"], runs["filled"])),))
        runs = packing("conversations", rounds=rounds, count=640)
        found = ratio(runs["packed"], runs["filled"])
        _say("packing, short conversations", runs, (("packed / filled", found),))
        return list(judged("packing", found, PACKED_MIN, None))
    runs = against("sft" if part == "sft" else "dpo", rounds=rounds, steps=_STEPS[part])
    found, noise = ratio(runs["ours"], runs["plain"]), ratio(runs["again"], runs["plain"])
    _say(f"{part} against a plain TRL script", runs, (("ours / plain", found), ("plain / plain (A/A)", noise)))
    return list(judged(part, found, AGAINST_MIN, noise))


def _compiler(*, large: bool) -> list[str]:
    """In a process of its own, whose memory nothing else is in."""
    sys.stdout.write("\nthe dataset compiler\n")
    sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "training.data.bench", *(["--large"] if large else [])], check=False, timeout=7200
    )
    return ["the dataset compiler: see above"] if done.returncode else []


def _say(title: str, runs: Mapping[str, list[Run]], ratios: Sequence[tuple[str, Ratio]]) -> None:
    from training.speed.against import shown

    sys.stdout.write(f"\n{title}\n")
    for name, each in runs.items():
        sys.stdout.write(f"  {name:22}{per_s(each):>10.0f} tokens a CPU second  ({shown(each)})\n")
    for name, found in ratios:
        sys.stdout.write(f"  {name:22}{found!s:>24}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
