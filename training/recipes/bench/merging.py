"""`python -m training.recipes.bench.merging A B --how svd --out DIR`: one merge, in a process that may load torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.merge import HOW, merge


def main(
    adapters: Annotated[list[Path], typer.Argument(help="Folders of adapters.")],
    out: Annotated[Path, typer.Option(help="The new adapter's folder.")],
    how: Annotated[str, typer.Option(help="The kind of merge.")],
    seed: Annotated[int, typer.Option(help="What chance follows.")] = 0,
) -> None:
    """Merge adapters."""
    merge(adapters, out, how=next(each for each in HOW if each == how), seed=seed)


if __name__ == "__main__":
    typer.run(main)
