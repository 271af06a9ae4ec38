"""`make thousand`: 1 000 adapters registered on one engine, asked for as people do. Takes up to twenty minutes.

The curve is measured while the registry grows: 1, 8, 64, 256, 1 000 adapters registered and asked for, so its row of 8
is an engine that has eight, and is measured by as many blocks as what is held against it. At 1 000, blocks of traffic
over all of them and over the eight most wanted take turns; pairs of like blocks say how far two measurements of the
same thing lie apart. Then a small engine is filled beyond what it can hold.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from loadtests import control
from loadtests.beyond import beyond_the_bound
from loadtests.markers import WORDS, Files, files, markers, packed, spoken, varied
from loadtests.popularity import draws, shares
from loadtests.report import Row, report
from loadtests.stack import Up, stack, up
from loadtests.streams import percentile
from loadtests.traffic import Seen, Traffic
from loadtests.usage import usage

SIZES = (1, 8, 64, 256, 1000)
FEW = 8
CLIENTS = 16
BLOCK_S, PAIRS = 10.0, 6
UPLOADERS = 4
LAST = 20
COLD = 20
LONGEST_S = 1200.0
KEPT = 0.9
VERIFIED_S_MAX, FIRST_TOKEN_S_MAX = 5.0, 1.0
BODY = {
    "messages": [{"role": "user", "content": "When are you open?"}],
    "temperature": 0,
    "max_tokens": 24,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A stretch of traffic: tokens of answers per second, and what one of them cost in processor time."""

    tokens_per_s: float
    cpu_us_per_token: float
    engine_us_per_token: float
    seen: tuple[Seen, ...]
    bad: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One row of the curve. `warm_ms` and `cold_ms` are times to the first token: resident, and not in a slot."""

    count: int
    block: Block
    engine_bytes: int
    gateway_bytes: int
    worker_bytes: int
    warm_ms: float
    cold_ms: float


def main() -> int:
    content = [files(folder) for folder in markers().values()]
    began = time.time()
    with stack() as running:
        ours = up(running)
        curve: list[Point] = []
        alone: list[Block] = []
        registered: list[control.Answered] = []
        promoted: list[float] = []
        for size in SIZES:
            if size == SIZES[-1]:
                registered += _fill(ours, content, range(len(registered), size - LAST))
                last, promoted = one_by_one(ours, content, range(size - LAST, size))
                registered += last
            else:
                registered += _fill(ours, content, range(len(registered), size))
            bad = [one for one in registered if one.document.get("state") != "verified"]
            if bad:
                raise SystemExit(f"{len(bad)} of {len(registered)} were not verified, such as {bad[0]}")
            curve.append(point(ours, size))
            draw([curve[-1]])
            if size == FEW:
                alone = [traffic(ours, FEW, seed=turn) for turn in range(PAIRS)]
        many, few = by_turns(ours)
        filled_s = time.time() - began
    rows = judged(curve, alone, many, few, last, promoted)
    rows += beyond_the_bound(content[0])
    took_s = time.time() - began
    note = f"all {SIZES[-1]} there and measured after {filled_s:.0f} s"
    rows.append(Row(name="took", found=took_s, bound=LONGEST_S, unit="s", note=note))
    draw(curve)
    return report(f"{SIZES[-1]} adapters on one engine", rows)


def _fill(ours: Up, content: Sequence[Files], numbers: range) -> list[control.Answered]:
    """Register many at once; returns when all are verified."""

    def one(number: int) -> control.Answered:
        archive = packed(varied(content[number % len(WORDS)], number))
        return control.upload(ours, name_of(number), archive, wait_s=300)

    with ThreadPoolExecutor(UPLOADERS) as pool:
        return list(pool.map(one, numbers))


def one_by_one(ours: Up, content: Sequence[Files], numbers: range) -> tuple[list[control.Answered], list[float]]:
    """Register as one person would, and promote each under another alias; (answers, promote → first token in s)."""
    answers, promoted = [], []
    for number in numbers:
        archive = packed(varied(content[number % len(WORDS)], number))
        answers.append(control.upload(ours, name_of(number), archive, wait_s=60))
        began = time.time()
        control.promote(ours, name_of(number), 1, alias="chosen")
        until = began + 10
        while time.time() < until:
            first = _ask(ours, f"{name_of(number)}@chosen")
            if first.good:
                promoted.append(first.first - began)
                break
        else:
            promoted.append(float("inf"))
    return answers, promoted


def point(ours: Up, count: int) -> Point:
    """Traffic over the first `count` adapters, memory after it, then single requests on a quiet engine."""
    block = traffic(ours, count)
    rng = random.Random(count)
    asked = rng.sample(range(count), min(COLD, count))
    cold = [_first_ms(ours, number) for number in asked]
    warm = [_first_ms(ours, asked[-1]) for _ in range(COLD)]
    engine, worker, gateway = (usage(ours.child(name)["pid"]) for name in ("engine", "worker", "gateway"))
    return Point(
        count=count,
        block=block,
        engine_bytes=engine.memory_bytes,
        gateway_bytes=gateway.memory_bytes,
        worker_bytes=worker.memory_bytes,
        warm_ms=statistics.median(warm),
        cold_ms=statistics.median(cold),
    )


def by_turns(ours: Up) -> tuple[list[Block], list[Block]]:
    """Blocks over all adapters and over the few most wanted, in an order that cancels a drift."""
    many: list[Block] = []
    few: list[Block] = []
    for turn in range(PAIRS):
        for count in (SIZES[-1], FEW) if turn % 2 else (FEW, SIZES[-1]):
            (many if count > FEW else few).append(traffic(ours, count, seed=turn))
    return many, few


def traffic(ours: Up, count: int, *, seed: int = 0) -> Block:
    """`CLIENTS` clients for `BLOCK_S` over the first `count` adapters by popularity, after a second to settle."""
    ids = draws(shares(count), random.Random(seed))
    asking = Traffic(ours.port, ours.key, BODY, clients=CLIENTS, pick=lambda: {"model": name_of(next(ids))})
    pids = [ours.child(name)["pid"] for name in ("engine", "gateway", "worker")]
    with asking:
        time.sleep(1)
        began, before = time.time(), [usage(pid).cpu_s for pid in pids]
        time.sleep(BLOCK_S)
        ended, used_s = time.time(), [usage(pid).cpu_s - was for pid, was in zip(pids, before, strict=True)]
    seen = tuple(one for one in asking.seen if began <= one.ended <= ended)
    tokens = sum(one.tokens for one in seen)
    return Block(
        tokens_per_s=tokens / (ended - began),
        cpu_us_per_token=sum(used_s) * 1e6 / max(1, tokens),
        engine_us_per_token=used_s[0] * 1e6 / max(1, tokens),
        seen=seen,
        bad=sum(not one.good or not one.text.startswith(word_of(one.model)) for one in asking.seen),
    )


def judged(
    curve: Sequence[Point],
    alone: Sequence[Block],
    many: Sequence[Block],
    few: Sequence[Block],
    last: Sequence[control.Answered],
    promoted: Sequence[float],
) -> list[Row]:
    ratios = [a.tokens_per_s / b.tokens_per_s for a, b in zip(many, few, strict=True)]
    costs = [a.cpu_us_per_token / b.cpu_us_per_token for a, b in zip(many, few, strict=True)]
    same = [a.tokens_per_s / b.tokens_per_s for a, b in itertools.pairwise(few)]
    verified = [one.seconds for one in last]
    blocks = [*many, *few, *alone, *(one.block for one in curve)]
    bad, count = sum(block.bad for block in blocks), sum(len(block.seen) for block in blocks)
    before = [block.tokens_per_s for block in alone]
    asked = len({one.model for block in many for one in block.seen})
    return [
        Row(name="failures and answers in another's words", found=bad, bound=0, note=f"of {count} requests; {asked} "
            f"adapters were asked for in the blocks over all"),
        Row(name=f"throughput over all {SIZES[-1]} / over {FEW}", found=statistics.median(ratios), bound=KEPT,
            kind="least", note=f"pairs {min(ratios):.3f}-{max(ratios):.3f}; {FEW} against {FEW}: "
            f"{min(same):.3f}-{max(same):.3f}; {statistics.median(b.tokens_per_s for b in many):.0f} tokens/s"),
        Row(name=f"  / over {FEW} when no more were registered",
            found=statistics.median(b.tokens_per_s for b in many) / statistics.median(before), bound=KEPT, kind="least",
            note=f"not in turns; then {min(before):.0f}-{max(before):.0f} tokens/s"),
        Row(name="  processor time per token, all / few", found=statistics.median(costs), bound=1 / KEPT,
            note=f"pairs {min(costs):.3f}-{max(costs):.3f}"),
        Row(name=f"register → verified, the last {LAST}, p50", found=statistics.median(verified),
            bound=VERIFIED_S_MAX, unit="s", note=f"max {max(verified):.2f} s"),
        Row(name="promote → first token, max", found=max(promoted), bound=FIRST_TOKEN_S_MAX, unit="s",
            note=f"p50 {percentile(promoted, 0.5):.2f} s"),
    ]  # fmt: skip


def draw(curve: Sequence[Point]) -> None:
    """The curve, with a bar for throughput."""
    table = Table(
        "adapters",
        "tokens/s",
        "",
        "CPU µs/token",
        "of the engine",
        "first token warm",
        "cold",
        "engine",
        "gateway",
        "worker",
    )
    most = max(one.block.tokens_per_s for one in curve)
    for one in curve:
        bar = "█" * max(1, round(20 * one.block.tokens_per_s / most))
        sizes = (f"{size / 2**20:.0f} MiB" for size in (one.engine_bytes, one.gateway_bytes, one.worker_bytes))
        cost = (f"{one.block.cpu_us_per_token:.0f}", f"{one.block.engine_us_per_token:.0f}")
        speed = (f"{one.block.tokens_per_s:.0f}", bar, *cost)
        table.add_row(str(one.count), *speed, f"{one.warm_ms:.0f} ms", f"{one.cold_ms:.0f} ms", *sizes)
    Console(width=160).print(table)


def name_of(number: int) -> str:
    return f"many-{number}"


def word_of(name: str) -> str:
    return spoken(WORDS[int(name.partition("@")[0].rpartition("-")[2]) % len(WORDS)])


def _first_ms(ours: Up, number: int) -> float:
    one = _ask(ours, name_of(number))
    return (one.first - one.began) * 1e3


def _ask(ours: Up, model: str) -> Seen:
    asking = Traffic(ours.port, ours.key, BODY)
    return asking.once({"model": model, "max_tokens": 8})


if __name__ == "__main__":
    sys.exit(main())
