"""The control of `make hostile`: the same folders on bare vLLM, which takes what it is given and pays with its answers.

Each folder is loaded and, where it is taken, asked once; then the base and a good neighbour are asked what they were
asked before, one question at a time, so that nothing but the poison can change their answers.
"""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from loadtests.bare import MODEL, NAME, Bare, bare
from loadtests.markers import spoken, unpack_into, varied
from loadtests.report import Row
from loadtests.stack import Stack, stack
from loadtests.wares import Ware
from loadtests.witness import ask, sure_of

GOOD, WORD = "good", "alpha"
EACH = 3  # questions to the base and to the neighbour after each folder
RESTARTS_MAX = 2


class Control:
    """A bare engine that is started again when a folder killed it."""

    def __init__(self, running: Stack, marker: Path) -> None:
        self._running, self._marker = running, marker
        self.deaths: list[str] = []
        self.engine = self._fresh()
        self.usual = sure_of(self.engine.port, "", MODEL)

    def try_(self, ware: Ware, name: str) -> tuple[bool, int]:
        """(whether it was taken, how many answers of others were wrong afterwards)."""
        try:
            status, _, _ = self.engine.load(name, ware.at)
            if status != 200:
                return False, 0
            ask(self.engine.port, "", name, "Hello!")
            return True, self.wrong()
        except (OSError, http.client.HTTPException):
            self.deaths.append(ware.name)
            self._running.kill(NAME)
            if len(self.deaths) <= RESTARTS_MAX:
                self.engine = self._fresh()
            return True, 0

    @property
    def over(self) -> bool:
        return len(self.deaths) > RESTARTS_MAX

    def wrong(self) -> int:
        base = [ask(self.engine.port, "", one.model, one.question) != one.answer for one in self.usual[:EACH]]
        good = [ask(self.engine.port, "", GOOD, one.question) != spoken(WORD) for one in self.usual[:EACH]]
        return sum(base) + sum(good)

    def _fresh(self) -> Bare:
        engine = bare(self._running)
        status, said, _ = engine.load(GOOD, self._marker)
        if status != 200:
            raise SystemExit(f"Bare vLLM does not take the good marker: {said}")
        return engine


def poisoned_rows(wares: Sequence[Ware], marker: Mapping[str, bytes]) -> Iterator[Row]:
    taken: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    asked = tried = 0
    with stack() as running:
        folder = unpack_into(running.home / GOOD, varied(marker, 41_000))
        control = Control(running, folder)
        calm = sum(control.wrong() for _ in range(4))
        for number, ware in enumerate(one for one in wares if one.at.is_dir()):
            if control.over:
                break
            tried += 1
            accepted, others = control.try_(ware, f"hostile-{number}")
            taken[ware.kind] += accepted
            wrong[ware.kind] += others
            asked += 2 * EACH * accepted
    kinds = ", ".join(kind for kind, count in taken.items() if count)
    guilty = ", ".join(f"{kind} {count}" for kind, count in wrong.most_common(6) if count)
    yield Row(name="bare vLLM, the same folders: taken", found=taken.total(), bound=5, kind="least",
              note=f"of {tried}: {kinds}")  # fmt: skip
    yield Row(name="  answers of the base and a good neighbour wrong afterwards", found=wrong.total(), bound=1,
              kind="least", note=f"of {asked} ({calm} of {8 * EACH} before): {guilty}")  # fmt: skip
    if control.deaths:
        yield Row(name="  engines killed by an adapter", found=len(control.deaths), bound=1, kind="least",
                  note=", ".join(control.deaths))  # fmt: skip
