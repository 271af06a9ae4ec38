"""Our recipes and the plain script, in turns, in one process: what is loaded once is loaded for both. Heavy.

Each round runs the plain script, our recipe and the plain script again, in an order that changes from round to round.
The third stands against the first: what differs between those two is noise. CPU seconds count from before the base is
loaded until the last step is done, with one thread: loading, tokenizing and training.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from training.base import PATH
from training.recipes.lesson import Lesson
from training.recipes.progress import Heard, Stepped
from training.recipes.recipe import build
from training.recipes.rows import read
from training.speed.plain import train
from training.speed.ratios import Run

Method = Literal["sft", "dpo"]
_SOURCES = {"sft": "tidewell:usual", "dpo": "tidewell:polite_choices"}
_BATCH = 16
_TURNS_MAX = 6
_ORDERS = tuple(itertools.permutations(("plain", "ours", "again")))


def against(method: Method, *, rounds: int, steps: int) -> Mapping[str, list[Run]]:
    """The runs of `plain`, `ours` and `again`, a round at the same place of each."""
    wanted = {"name": "speed", "method": method, "data": {"train": _SOURCES[method], "rows_max": steps * _BATCH}}
    prepared = _lesson(wanted, {"steps": steps, "batch": _BATCH, "accumulate": 1})
    found: dict[str, list[Run]] = {"plain": [], "ours": [], "again": []}
    ways: dict[str, Callable[[Path], float]] = {
        "plain": partial(_plain, method, prepared),
        "ours": partial(_ours, prepared),
        "again": partial(_plain, method, prepared),
    }
    for way in ("plain", "ours"):  # whatever is made at the first use
        _timed(ways[way])
    for number in range(rounds):
        for way in _ORDERS[number % len(_ORDERS)]:
            found[way].append(_timed(ways[way]))
    return found


def packing(rows: Literal["questions", "conversations"], *, rounds: int, count: int) -> Mapping[str, list[Run]]:
    """Our SFT on the same short rows, `filled` to the longest of each batch, or `packed`, with what `auto` chooses.

    Questions with their answers are all about as long, so there is little to fill; conversations have one to six turns.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in _rows(rows, count)))
        lessons = {
            name: _lesson(
                {"name": "speed", "method": "sft", "data": {"train": str(file)}, "sft": {"packing": packed}},
                {"epochs": 2},
            )
            for name, packed in (("filled", False), ("packed", True))
        }
    found: dict[str, list[Run]] = {"filled": [], "packed": []}
    for name in found:
        _timed(partial(_ours, lessons[name]))
    for number in range(rounds):
        for name in sorted(found, reverse=bool(number % 2)):
            found[name].append(_timed(partial(_ours, lessons[name])))
    return found


def _rows(kind: Literal["questions", "conversations"], count: int) -> Iterator[Mapping[str, Any]]:
    """Rows from the embedded shop. After each turn of a conversation every second one goes on."""
    rng = random.Random(7)
    turns = [1] * count
    if kind == "conversations":
        turns = [next((n for n in range(1, _TURNS_MAX) if rng.random() < 0.5), _TURNS_MAX) for _ in range(count)]
    said = iter(read("tidewell:usual", rows_max=sum(turns), seed=7))
    for number in turns:
        *before, last = (next(said) for _ in range(number))
        history = [message for row in before for message in (*row["prompt"], *row["completion"])]
        yield {"prompt": [*history, *last["prompt"]], "completion": last["completion"]}


def _lesson(fields: Mapping[str, Any], optim: Mapping[str, Any]) -> Lesson:
    """A run with its choices made and its rows read; the same for every turn."""
    from training.recipes.run import prepare

    recipe = build({**fields, "seed": 7, "optim": {"precision": "float32", **optim}})
    return prepare(recipe, Path("nowhere"), base=PATH, start=None, progress=Heard())


def _ours(lesson: Lesson, folder: Path) -> float:
    from training.recipes.run import RECIPES

    heard = Heard()
    with _quiet():
        RECIPES[lesson.chosen.method](replace(lesson, folder=folder, progress=heard))
    steps = [event.numbers for event in heard.events if isinstance(event, Stepped)]
    return steps[-1]["num_tokens"]


def _plain(method: Method, lesson: Lesson, folder: Path) -> float:
    with _quiet():
        return train(method, lesson.recipe, lesson.chosen, lesson.rows, lesson.base, folder)


def _timed(way: Callable[[Path], float]) -> Run:
    import torch

    torch.set_num_threads(1)
    gc.collect()
    with tempfile.TemporaryDirectory() as name:
        began = time.process_time()
        tokens = way(Path(name))
        return Run(tokens=tokens, seconds=time.process_time() - began)


@contextmanager
def _quiet() -> Iterator[None]:
    """Both sides print nothing."""
    import contextlib
    import io

    from training.model import quiet

    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield


def shown(runs: Sequence[Run]) -> str:
    """CPU seconds and tokens of the median run."""
    middle = sorted(runs, key=lambda each: each.seconds)[len(runs) // 2]
    return f"{middle.tokens:.0f} tokens in {middle.seconds:.1f} s"
