"""`python -m training.publishing RUN`: a run's curves as a picture and as a CSV, and what their shape says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.publishing.curves import read, verdict
from training.publishing.errors import NoPlot
from training.publishing.plot import draw
from training.publishing.result import write_result


def main(run: Annotated[Path, typer.Argument(help="The run's folder.")], title: str = "") -> None:
    """Draw the curves of a run."""
    curves, record = read(run), run / "run.json"
    told = json.loads(record.read_bytes()) if record.is_file() else {}
    said = verdict(curves, learning_rate=told.get("chosen", {}).get("learning_rate"))
    lines = [str(write_result(run))]
    try:
        lines += map(str, draw(curves, said, title or told.get("recipe", {}).get("name", run.name), run))
    except NoPlot as error:
        lines.append(str(error))
    lines.append(f"{said.word.replace('_', '-')}: {said.evidence} {said.change}".strip())
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
