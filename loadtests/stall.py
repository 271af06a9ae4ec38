"""`make stall`: what a load does to those who have nothing to do with it, with the adapters on a slow disk.

A disk of ours reads 0.3 MB/s and keeps nothing, so an adapter of 0.5 MB takes 1.7 s each time that it is read. Under
eight long unrelated streams twenty adapters are registered, loaded, and asked. The stall of a load is the longest gap
between two tokens of any stream while it lasts, from the first byte of the upload to the adapter's first own answer,
less the streams' usual gap. The control is the same measure over the same lengths of time, in the same run, without
loads. Bare vLLM reads the same files from the same disk beside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import control
from loadtests.bare import bare
from loadtests.markers import WORDS, files, markers, packed, spoken, unpack_into, varied
from loadtests.report import Row, report
from loadtests.slowdisk import CannotMount, slow_disk
from loadtests.stack import Stack, Up, call, stack, up
from loadtests.streams import Streams, percentile

LOADS, BARE_LOADS, STREAMS = 20, 5, 8
BYTES_PER_S = 300_000
STALL_P95_MS, STALL_MAX_MS = 50.0, 100.0
PAUSE_S = 0.3
BASE = "tidewell"
LONG = {"messages": [{"role": "user", "content": "Tell me everything about your shop."}], "max_tokens": 400}
BODY: dict[str, Any] = {**LONG, "model": BASE, "ignore_eos": True, "temperature": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """Longest gaps beyond the usual one, ms: of each load, and of as many moments without one."""

    loads: tuple[float, ...]
    control: tuple[float, ...]
    usual_ms: float
    seconds: tuple[float, ...]
    failed: tuple[str, ...]
    wrong: int


def main() -> int:
    markers()
    try:
        rows = [*rows_of(through_us(), without_us())]
    except CannotMount as error:
        print(f"{error.code}: {error}")
        return 2
    return report(f"Stalls of unrelated streams while an adapter loads from a disk of {BYTES_PER_S / 1e6:g} MB/s", rows)


def through_us() -> Stalls:
    """Adapters registered while the artifact folder lies on the slow disk."""
    with stack() as running, _slow_artifacts(running):
        ours = up(running)
        content = {word: files(folder) for word, folder in markers().items()}
        warm = control.upload(ours, "warm", packed(varied(content["alpha"], 60_000)), wait_s=120)
        if warm.document.get("state") != "verified":
            raise SystemExit(f"The first adapter was not taken: {warm.status} {warm.document}")
        bodies = [BODY | {"model": "warm" if i % 2 else BASE} for i in range(STREAMS)]
        with Streams(ours.port, ours.key, bodies) as streams:
            time.sleep(3)
            return measured(streams, lambda turn: _load_through(ours, content, turn))


def without_us() -> Stalls:
    """Bare vLLM told to load the same files from the same disk."""
    with stack() as running:
        disk = slow_disk(running.home / "back", running.home / "slow", bytes_per_s=BYTES_PER_S)
        content = files(markers()[WORDS[0]])
        with disk as at:
            folders = [unpack_into(at / f"bare-{turn}", varied(content, turn)) for turn in range(BARE_LOADS)]
            engine = bare(running)
            with Streams(engine.port, "", [BODY] * STREAMS) as streams:
                time.sleep(3)

                def load(turn: int) -> bool:
                    status, _, _ = engine.load(f"bare-{turn}", folders[turn])
                    return status == 200 and _said(engine.url, "", f"bare-{turn}") == spoken(WORDS[0])

                return measured(streams, load, count=BARE_LOADS)


def measured(streams: Streams, load: Callable[[int], bool], *, count: int = LOADS) -> Stalls:
    """Loads and controls of the same lengths by turns: each load is followed by a quiet time as long as it was."""
    windows: list[tuple[float, float]] = []
    quiet: list[tuple[float, float]] = []
    wrong = 0
    for turn in range(count):
        began = time.time()
        wrong += not load(turn)
        ended = time.time()
        windows.append((began, ended))
        time.sleep(PAUSE_S)
        still = time.time()
        time.sleep(ended - began)
        quiet.append((still, time.time()))
        time.sleep(PAUSE_S)
    time.sleep(0.5)
    usual = percentile([streams.usual_ms(*one) for one in quiet], 0.5)
    return Stalls(
        loads=tuple(streams.longest_ms(*one) - usual for one in windows),
        control=tuple(streams.longest_ms(*one) - usual for one in quiet),
        usual_ms=usual,
        seconds=tuple(ended - began for began, ended in windows),
        failed=tuple(streams.failures),
        wrong=wrong,
    )


def rows_of(ours: Stalls, theirs: Stalls) -> Iterator[Row]:
    control_note = f"without loads {percentile(ours.control, 0.95):.0f}; usual gap {ours.usual_ms:.0f} ms"
    yield Row(name="stall of a load through us: p95", found=percentile(ours.loads, 0.95), bound=STALL_P95_MS, unit="ms",
              note=control_note)  # fmt: skip
    yield Row(name="  max", found=max(ours.loads), bound=STALL_MAX_MS, unit="ms",
              note=f"without loads {max(ours.control):.0f}; {len(ours.loads)} loads of {_spread(ours.seconds)} s each, "
              f"p50 {percentile(ours.loads, 0.5):.0f}")  # fmt: skip
    yield Row(name="  loads after which the adapter did not say its word", found=ours.wrong, bound=0)
    yield Row(name="  failed streams", found=len(ours.failed), bound=0, note="; ".join(ours.failed[:1]))
    yield Row(name="bare vLLM, same files: stall p50", found=percentile(theirs.loads, 0.5) / 1e3, bound=0.5,
              kind="least", unit="s", note=f"{_spread(tuple(one / 1e3 for one in theirs.loads))} s over "
              f"{len(theirs.loads)} loads; without loads {percentile(theirs.control, 0.95):.0f} ms")  # fmt: skip


def _load_through(ours: Up, content: dict[str, Any], turn: int) -> bool:
    word = WORDS[turn % len(WORDS)]
    name = f"slow-{turn}"
    answer = control.upload(ours, name, packed(varied(content[word], turn)), wait_s=120)
    if answer.document.get("state") != "verified":
        print(f"{name}: {answer.status} {str(answer.document)[:300]}")
        return False
    return _said(ours.url, ours.key, name) == spoken(word)


def _said(url: str, key: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 12, "temperature": 0}
    status, data = call("POST", f"{url}/v1/chat/completions", body, key)
    if status != 200:
        return data.decode(errors="replace")
    return str(json.loads(data)["choices"][0]["message"]["content"])


@contextmanager
def _slow_artifacts(running: Stack) -> Iterator[Path]:
    disk = slow_disk(running.home / "back", running.home / "artifacts", bytes_per_s=BYTES_PER_S)
    with disk as at:
        try:
            yield at
        finally:
            for name in reversed(list(running.processes)):  # nothing may use the disk when it goes
                running.stop(name)


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f}-{max(values):.1f}"


if __name__ == "__main__":
    sys.exit(main())
