"""`make swap`: an alias moved 200 times under sixteen streams and more, on real vLLM. Nobody may notice but by words.

Every version speaks a word of its own, the next one another: a header that lies, or an answer of two versions, shows.
Half of the moves and more are whole cycles with a digest never seen before: registered, loaded, probed, certified,
flipped to, drained, unloaded. The others go back and forth between versions that are warm.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests import control
from loadtests.markers import WORDS, files, markers, packed, spoken, varied
from loadtests.report import Row, report
from loadtests.stack import Up, stack, up
from loadtests.streams import percentile
from loadtests.traffic import Seen, Traffic

NAME = "swap"
CYCLES, MOVES = 100, 200
STREAMS = 20  # so that at least 16 are under way on average, for each client also spends time between answers
FLIP_MS_MAX = 250.0
LONGEST_S = 480.0
AHEAD = 2  # versions registered before their turn
PAUSE_S = 0.5  # after a move, so that its flip is seen by many requests
BODY = {
    "model": NAME,
    "messages": [{"role": "user", "content": "When are you open?"}],
    "stream": True,
    "temperature": 0,
    "max_tokens": 12,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The alias went from one number to another between these unix times."""

    before: int
    after: int
    began: float
    ended: float


@dataclass
class Swapping:
    """What the run did, filled by its threads."""

    up: Up
    words: dict[int, str] = field(default_factory=dict)
    registered_s: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    retired: dict[int, str] = field(default_factory=dict)  # number → engine-side name
    listed: dict[str, tuple[float, float]] = field(default_factory=dict)  # engine-side name → first and last seen
    stop: threading.Event = field(default_factory=threading.Event)

    def register(self, ready: queue.Queue[tuple[int, str]]) -> None:
        """Make new versions, a little ahead of their turn."""
        content = {word: files(folder) for word, folder in markers().items()}
        for turn in range(CYCLES + 1):
            word = WORDS[turn % len(WORDS)]
            answer = control.upload(self.up, NAME, packed(varied(content[word], turn)), wait_s=120)
            if answer.document.get("state") != "verified":
                self.refused.append(f"{answer.status} {str(answer.document)[:300]}")
                ready.put((0, ""))
                return
            number = int(answer.document["number"])
            self.words[number] = word
            self.registered_s.append(answer.seconds)
            while not self.stop.is_set():
                try:
                    ready.put((number, control.engine_side(answer)), timeout=0.5)
                    break
                except queue.Full:
                    continue
            if self.stop.is_set():
                return

    def move(self, ready: queue.Queue[tuple[int, str]], first: tuple[int, str], until: float) -> None:
        """Whole cycles; every second one goes back and forth before the version before last is retired."""
        warm = [first]
        for turn in range(CYCLES):
            try:
                number, name = ready.get(timeout=max(1.0, until - time.time()))
            except queue.Empty:
                return
            if not number or time.time() > until:
                return
            live = warm[-1][0]
            self._moved(live, number, control.promote(self.up, NAME, number))
            if turn % 2:
                self._moved(number, live, control.rollback(self.up, NAME))
                self._moved(live, number, control.promote(self.up, NAME, number))
            warm.append((number, name))
            if len(warm) > 2:
                self._retire(*warm.pop(0))
        for number, name in warm[:-1]:
            self._retire(number, name)

    def look(self) -> None:
        """What the engine itself lists, five times a second."""
        while not self.stop.wait(0.2):
            now = time.time()
            for name in control.engine_adapters(self.up):
                self.listed[name] = (self.listed.get(name, (now, now))[0], now)

    def _moved(self, before: int, after: int, answer: control.Answered) -> None:
        if answer.status != 200 or answer.document.get("number") != after:
            self.refused.append(f"{answer.status} {str(answer.document)[:300]}")
            return
        self.moves.append(Move(before=before, after=after, began=answer.began, ended=answer.ended))
        time.sleep(PAUSE_S)

    def _retire(self, number: int, name: str) -> None:
        answer = control.retire(self.up, NAME, number)
        if answer.status != 200:
            self.refused.append(f"{answer.status} {str(answer.document)[:300]}")
            return
        self.retired[number] = name


def main() -> int:
    markers()
    began = time.time()
    with stack() as running:
        ours = Swapping(up(running))
        print(f"Ready after {time.time() - began:.0f} s; moving …")
        ready: queue.Queue[tuple[int, str]] = queue.Queue(maxsize=AHEAD)
        threads = [threading.Thread(target=ours.register, args=(ready,)), threading.Thread(target=ours.look)]
        for thread in threads:
            thread.start()
        first = ready.get(timeout=180)
        try:
            if not first[0]:
                raise SystemExit(f"The first version was not taken: {ours.refused}")
            with Traffic(ours.up.port, ours.up.key, BODY, clients=STREAMS) as traffic:
                traffic.wait(STREAMS)
                ours.move(ready, first, until=began + LONGEST_S - 30)
                left = _left(ours, first)
        finally:
            ours.stop.set()
            for thread in threads:
                thread.join(150)
        rows = judged(ours, traffic.seen, left, time.time() - began)
    return report("Versions change under running streams", rows)


def judged(ours: Swapping, seen: Sequence[Seen], left: int, took_s: float) -> list[Row]:
    """The table. What was seen of a flip is judged by requests that began after it, and before the next."""
    failed = [one for one in seen if not one.good]
    mixed = [one for one in seen if sum(word in one.text.lower() for word in WORDS) > 1]
    lies = [one for one in seen if one.good and one.text != spoken(ours.words.get(_number(one), "?"))]
    late = stale_ms(ours.moves, seen)
    from_call = [one + (move.ended - move.began) * 1e3 for one, move in zip(late, ours.moves, strict=True)]
    across = sum(any(one.began < move.began < one.ended for move in ours.moves) for one in seen)
    cycles = [name for name in ours.retired.values() if _unloaded(ours, name)]
    at_once = sum(one.ended - one.began for one in seen) / max(1e-9, seen[-1].ended - seen[0].began)
    speed = ours.registered_s or [0.0]
    return [
        Row(name="moves of the alias", found=len(ours.moves), bound=MOVES, kind="least", note="; ".join(ours.refused)),
        Row(name="  of them whole cycles with a new digest", found=len(cycles), bound=CYCLES, kind="least",
            note=f"register → verified p50 {percentile(speed, 0.5):.2f} s, max {max(speed):.2f} s"),
        Row(name="streams at once, on average", found=at_once, bound=16, kind="least"),
        Row(name="failed requests", found=len(failed), bound=0, note=f"of {len(seen)}; {failed[:1] or ''}"),
        Row(name="answers with two markers", found=len(mixed), bound=0, note=f"{across} answers ran across a move"),
        Row(name="answers in other words than their header's", found=len(lies), bound=0, note=f"{lies[:1] or ''}"),
        Row(name="flip visible to every request that begins later than", found=max(late, default=0.0),
            bound=FLIP_MS_MAX, unit="ms", note=f"after the call; p50 {percentile(late, 0.5):.0f}, from its start "
            f"p50 {percentile(from_call, 0.5):.0f}, max {max(from_call, default=0.0):.0f}"),
        Row(name="retired versions that the engine still lists", found=left, bound=0),
        Row(name="took, start of the engine included", found=took_s, bound=LONGEST_S, unit="s"),
    ]  # fmt: skip


def stale_ms(moves: Sequence[Move], seen: Sequence[Seen]) -> list[float]:
    """For each move, how long after its call returned a request still began that got the version before."""
    ordered = sorted((one for one in seen if one.good), key=lambda one: one.began)
    found = []
    for move, following in zip(moves, [*moves[1:], None], strict=True):
        until = following.began if following else float("inf")
        old = [one.began for one in ordered if move.ended < one.began < until and _number(one) == move.before]
        found.append(max(((one - move.ended) * 1e3 for one in old), default=0.0))
    return found


def _number(one: Seen) -> int:
    """The version's number in an answer's header, `name:number@digest`."""
    number = one.adapter.partition("@")[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else -1


def _unloaded(ours: Swapping, name: str) -> bool:
    """The engine listed it once, and does not any more."""
    newest = max((last for _, last in ours.listed.values()), default=0.0)
    listed = ours.listed.get(name)
    return listed is not None and listed[1] < newest


def _left(ours: Swapping, first: tuple[int, str]) -> int:
    """Retired versions on the engine, once it had time to drain."""
    until = time.time() + 20
    while left := control.engine_adapters(ours.up) & set(ours.retired.values()):
        if time.time() > until:
            break
        time.sleep(0.2)
    time.sleep(0.5)  # one more look at what the engine lists
    return len(left)


if __name__ == "__main__":
    sys.exit(main())
