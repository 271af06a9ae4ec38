"""From seed to shipped folder: pre-train, quantize, score both, write the card.

python -m training.base.ship --out DIR        leaves DIR/bf16 and DIR/tidewell
"""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from training.base import NAME
from training.base.digest import CARD
from training.base.evaluate import local_answers, score
from training.base.pretrain import REPORT, Plan, run
from training.quantize import quantize

_PINNED = ("torch", "transformers", "tokenizers", "compressed-tensors", "safetensors")


def ship(out: Path, plan: Plan, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make the artefact; returns its card. A bf16 checkpoint already in `out` is used as it is."""
    source, target = out / "bf16", out / NAME
    if not (source / REPORT).exists():
        run(source, plan, progress)
    made = json.loads((source / REPORT).read_text())
    report = quantize(source, target, progress=progress)
    scores = {}
    for label, folder in (("bf16", source), ("w4a16", target)):
        scores[label] = asdict(score(local_answers(folder)))
        progress(f"{label}: " + ", ".join(f"{name} {rate['rate']:.3f}" for name, rate in scores[label].items()))
    card = {
        "name": NAME,
        "digest": report.digest,
        "made_with": {
            **made,
            "python": platform.python_version(),
            **{package: version(package) for package in _PINNED},
        },
        "quantization": {
            "scheme": report.scheme,
            "group": report.group,
            "layers": report.layers_quantized,
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
            "error_mean": round(report.error_mean, 5),
            "error_max": round(report.error_max, 5),
        },
        "scores": scores,
    }
    (target / CARD).write_text(json.dumps(card, indent=1) + "\n")
    return card


def main(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint and the artefact.")],
    seed: Annotated[int, typer.Option(help="Decides data order and initial weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Make the embedded base from its seed."""
    card = ship(out, Plan(seed=seed, threads=threads), typer.echo)
    typer.echo(card["digest"])


if __name__ == "__main__":
    typer.run(main)
