"""`graftline convert`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.control import find_base
from gateway.settings import load
from gateway.verbs.console import say, table


def convert(
    source: Annotated[Path, typer.Argument(help="An adapter folder: LoRA or DoRA, of any ranks and scalings.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    rank: Annotated[int, typer.Option(help="The largest rank it may have.")] = 16,
) -> None:
    """Turn a DoRA, or a LoRA of too high a rank, into the nearest plain LoRA that can be served."""
    from training.convert import convert as run

    done = run(source, out, base=find_base(load(os.environ)).folder, rank=rank)
    rows = [(module, f"{loss:.4f}") for module, loss in sorted(done.loss.items())]
    table(f"{out}: rank {done.rank}", ("module", "relative loss"), [*rows, ("all", f"{done.loss_total:.4f}")])
    say(
        f"On the probe prompts a token's logprob differs by {done.logprob_mean:.4f} on average and "
        f"{done.logprob_most:.4f} at most; the adapter itself moves one by up to {done.effect:.2f}."
    )
