"""`graftline quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.verbs.console import say


def quantize(
    source: Annotated[Path, typer.Argument(help="A checkpoint folder in bf16, fp16 or fp32 safetensors.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    scheme: Annotated[str, typer.Option(help="w4a16 or w4a16_asym.")] = "w4a16",
    group: Annotated[int, typer.Option(help="Weights that share a scale.")] = 64,
) -> None:
    """Make a W4A16 base that vLLM serves with adapters, on CPU and GPU."""
    from training.quantize import quantize as run

    if scheme not in ("w4a16", "w4a16_asym"):
        raise typer.BadParameter(f"{scheme!r}; allowed: w4a16, w4a16_asym")
    report = run(source, out, scheme=scheme, group=group, progress=say)  # type: ignore[arg-type]
    say(
        f"{report.layers_quantized} layers, {report.bytes_before / 1e6:.1f} → {report.bytes_after / 1e6:.1f} MB, "
        f"mean relative error {report.error_mean:.4f}; {report.digest}"
    )
