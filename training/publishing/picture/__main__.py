"""`python -m training.publishing.picture SFT_RUN GRPO_RUN`: the README's picture, from the events of two runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from training.publishing.curves import Curves, read
from training.publishing.errors import NoPlot
from training.publishing.plot import Panel, picture

FILE: Final = Path(__file__).with_name("curves.svg")


def main(
    supervised: Annotated[Path, typer.Argument(help="The folder of a run that tells a loss, of held-out rows too.")],
    rewarded: Annotated[Path, typer.Argument(help="The folder of a run that tells rewards.")],
    out: Annotated[Path, typer.Option(help="Where the picture goes, an .svg or a .png.")] = FILE,
) -> None:
    """Draw how a loss fell, and how a reward rose."""
    loss, reward = _told(supervised, "loss"), _told(rewarded, "reward")
    try:
        made = picture(
            Panel(
                title=f"{_name(supervised)}: loss",
                label="nats a token",
                ours=loss.series("loss"),
                theirs=loss.held_series("eval_loss"),
            ),
            Panel(title=f"{_name(rewarded)}: reward", label="reward", ours=reward.series("reward")),
            # TRL tells the distance a token.
            Panel(label="KL, nats", ours=reward.series("kl")),
            out,
        )
    except NoPlot as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from error
    sys.stdout.write(f"{made}\n")


def _told(run: Path, name: str) -> Curves:
    """The curves of a run that told this number."""
    curves = read(run)
    if not curves.series(name):
        raise typer.BadParameter(f"{run} told no {name}; a finished run of `graftline train` is wanted")
    return curves


def _name(run: Path) -> str:
    """What the run was called, and the method that it chose."""
    path = run / "run.json"
    if not path.is_file():
        raise typer.BadParameter(f"{run} has no {path.name}; a finished run of `graftline train` is wanted")
    found = json.loads(path.read_bytes())
    return f"{found['recipe']['name']} ({found['chosen']['method'].upper()})"


if __name__ == "__main__":
    typer.run(main)
