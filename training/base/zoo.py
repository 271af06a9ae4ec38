"""Good adapters of every kind that PEFT makes and the engine serves: whoever refuses one of them raises a false alarm.

OMP_WAIT_POLICY=passive KMP_BLOCKTIME=0 python -m training.base.zoo --out DIR

Each is really trained, a second or a few, until it moves some token's logprob well beyond rounding. `manifest.json` has
a row for each: name, kind, path, how it was trained, and its effect in nats.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from training.base import NAME, PATH
from training.base.zoo_kinds import KINDS, TRAINERS
from training.base.zoo_merges import merged
from training.base.zoo_training import EFFECT_MIN, Lesson, effect_of, lesson, taught
from training.base.zoo_trl import by_trl
from training.errors import OutputExists

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """One good adapter. `effect` is the largest change of a logprob on a few answers, in nats."""

    name: str
    kind: str
    path: str
    trained: str
    effect: float


def make(out: Path, *, base: Path = PATH, seed: int = 0, progress: Tell | None = None) -> list[Specimen]:
    """Train every specimen into the new folder `out`; returns the rows of the manifest. OutputExists."""
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    tell = progress or _silent
    out.mkdir(parents=True)
    school = lesson(base, seed=seed)
    rows = []
    for maker in (_plain, _by_trainers, merged):
        for name, kind, trained in maker(school, out):
            effect = effect_of(school, out / name)
            rows.append(Specimen(name=name, kind=kind, path=name, trained=trained, effect=round(effect, 3)))
            tell(f"{name}: {trained}, effect {effect:.2f}")
            if effect < EFFECT_MIN:
                raise AssertionError(f"{name} moves no logprob by {EFFECT_MIN}; its training is too gentle")
    (out / "manifest.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


def main(
    out: Annotated[Path, typer.Option(help="A new folder for one adapter folder per kind.")],
    base: Annotated[Path, typer.Option(help="The base the adapters are for.")] = PATH,
    seed: Annotated[int, typer.Option(help="Decides prompts and initial weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Train good adapters of every kind."""
    import torch

    torch.set_num_threads(threads)
    started = time.monotonic()
    rows = make(out, base=base, seed=seed, progress=typer.echo)
    kinds = len({row.kind for row in rows})
    typer.echo(f"{len(rows)} adapters of {kinds} kinds in {time.monotonic() - started:.0f} s")


def _plain(school: Lesson, out: Path) -> Iterator[tuple[str, str, str]]:
    """Every configuration of LoRA, by one short loop of our own."""
    for name, kind in KINDS.items():
        steps = taught(school, kind, out / name)
        yield name, kind.kind, f"SFT, {steps} steps"


def _by_trainers(school: Lesson, out: Path) -> Iterator[tuple[str, str, str]]:
    """One by each of TRL's trainers, on feedback of the kind that it takes."""
    for name, trainer in TRAINERS.items():
        by_trl(school, trainer, out / name)
        if trainer.quantized:
            _rename(out / name, f"{NAME}-bnb-4bit")
        yield name, trainer.kind, f"TRL {trainer.trainer}, {trainer.steps} steps"


def _rename(folder: Path, base: str) -> None:
    """What a person who trains on the hub's 4-bit copy has in the config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}, indent=1))


def _silent(_line: str) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    typer.run(main)
