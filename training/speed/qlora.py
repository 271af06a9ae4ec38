"""QLoRA with a paged optimizer on a base of a billion parameters' shape, against plain TRL: memory and tokens a second.

`python -m training.speed.qlora` on a machine with an NVIDIA GPU. The weights are random: neither speed nor memory
looks at them. Memory is the accelerator's peak from before the base is loaded; time is from the first step to the last.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from training.base import PATH
from training.recipes.lesson import Lesson
from training.recipes.progress import Heard, Stepped
from training.recipes.recipe import build
from training.speed.plain import train
from training.speed.ratios import Ratio, Run, per_s, ratio

AGAINST_MIN: Final = 0.97
MEMORY_MAX: Final = 1.03
_TOKENS = 512
_OPTIMIZER = "paged_adamw_8bit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of a Llama model."""

    hidden: int
    layers: int
    inner: int
    heads: int
    shared: int  # key and value heads
    vocabulary: int


BILLION: Final = Shape(hidden=2048, layers=16, inner=8192, heads=32, shared=8, vocabulary=65_536)
SMALL: Final = Shape(hidden=64, layers=2, inner=128, heads=2, shared=1, vocabulary=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Both sides' runs; seconds are of the wall, bytes of the accelerator at its peak."""

    parameters: int
    ours: Sequence[Run]
    plain: Sequence[Run]
    ours_bytes: int
    plain_bytes: int

    @property
    def ratio(self) -> Ratio:
        return ratio(self.ours, self.plain)


def measure(shape: Shape, *, rounds: int, steps: int, batch: int) -> Measured:
    """Our recipe and the plain script in turns, on the same random rows."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        parameters = made(base, shape)
        lesson = _lesson(base, shape, steps, batch)
        found: dict[str, list[Run]] = {"ours": [], "plain": []}
        most = {"ours": 0, "plain": 0}
        ways: dict[str, Callable[[Path, Any], float]] = {
            "ours": lambda folder, clock: _ours(lesson, folder, clock),
            "plain": lambda folder, clock: _plain(lesson, folder, clock),
        }
        for number in range(rounds + 1):
            for way in sorted(ways, reverse=bool(number % 2)):
                run, used = _timed(ways[way])
                if number:  # the first is to warm up
                    found[way].append(run)
                    most[way] = max(most[way], used)
    return Measured(
        parameters=parameters, ours=found["ours"], plain=found["plain"], ours_bytes=most["ours"],
        plain_bytes=most["plain"],
    )  # fmt: skip


def made(folder: Path, shape: Shape) -> int:
    """Write a base of random weights with the embedded base's tokenizer; how many parameters it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.hidden, num_hidden_layers=shape.layers, intermediate_size=shape.inner,
        num_attention_heads=shape.heads, num_key_value_heads=shape.shared, vocab_size=shape.vocabulary,
        max_position_embeddings=2048, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    for file in PATH.iterdir():
        if file.name.startswith("tokenizer") or file.suffix == ".jinja":
            shutil.copy(file, folder / file.name)
    parameters: int = sum(part.numel() for part in model.parameters())
    del model
    return parameters


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m training.speed.qlora", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stdout.write("there is no NVIDIA GPU here: nothing was measured\n")
        return 2
    found = measure(BILLION, rounds=asked.rounds, steps=asked.steps, batch=asked.batch)
    sys.stdout.write(
        f"{torch.cuda.get_device_name()}: QLoRA NF4, {_OPTIMIZER}, {found.parameters / 1e9:.2f} B parameters, "
        f"{asked.batch} rows of {_TOKENS} tokens\n"
        f"  ours   {per_s(found.ours):>9.0f} tokens/s {found.ours_bytes / 2**30:>7.2f} GiB at the peak\n"
        f"  plain  {per_s(found.plain):>9.0f} tokens/s {found.plain_bytes / 2**30:>7.2f} GiB at the peak\n"
        f"  ours / plain {found.ratio}\n"
    )
    return int(found.ratio.mean < AGAINST_MIN or found.ours_bytes > MEMORY_MAX * found.plain_bytes)


def _lesson(base: Path, shape: Shape, steps: int, batch: int) -> Lesson:
    """Choices made and rows read, once for both sides."""
    from training.recipes.run import prepare

    rng = random.Random(7)
    ids = [[rng.randrange(8, min(1000, shape.vocabulary)) for _ in range(_TOKENS)] for _ in range(batch)]
    recipe = build({
        "name": "qlora", "method": "sft", "base": str(base), "quantization": "nf4", "seed": 7,
        "data": {"train": "tidewell:usual", "rows_max": batch, "tokens_max": _TOKENS},
        "adapter": {"rank": 16, "alpha": 32.0},
        "optim": {
            "steps": steps, "batch": batch, "accumulate": 1, "optimizer": _OPTIMIZER, "checkpointing": True,
            "learning_rate": 1e-4, "warmup_steps": 0,
        },
    })  # fmt: skip
    lesson = prepare(recipe, base.parent / "nowhere", base=base, start=None, progress=Heard())
    return replace(lesson, rows=[{"input_ids": each, "labels": each} for each in ids], lengths=[_TOKENS] * batch)


def _ours(lesson: Lesson, folder: Path, clock: Any) -> float:
    from training.recipes.sft import sft

    heard = Heard()
    with contextlib.redirect_stdout(io.StringIO()):
        sft(replace(lesson, folder=folder, progress=heard, listening=[clock]))
    return [event.numbers for event in heard.events if isinstance(event, Stepped)][-1]["num_tokens"]


def _plain(lesson: Lesson, folder: Path, clock: Any) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        return train("sft", lesson.recipe, lesson.chosen, lesson.rows, lesson.base, folder, callbacks=[clock])


def _timed(way: Callable[[Path, Any], float]) -> tuple[Run, int]:
    import torch
    from transformers import TrainerCallback

    from training.model import quiet

    gpu = torch.cuda.is_available()

    class Clock(TrainerCallback):  # type: ignore[misc]
        """When the steps began and ended."""

        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = self._now()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = self._now()

        def _now(self) -> float:
            if gpu:
                torch.cuda.synchronize()
            return time.perf_counter()

    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    with tempfile.TemporaryDirectory() as name, quiet():
        tokens = way(Path(name), clock)
    return Run(tokens=tokens, seconds=clock.ended - clock.began), torch.cuda.max_memory_allocated() if gpu else 0


if __name__ == "__main__":
    sys.exit(main())
