"""`python -m training.probe --base FOLDER --fd N`: answers JSON lines on the socket N until it is closed or idle.

First it says hello: {"prompts": …, "base": …, "confined": …, "seconds": …}. Then {"id": n, "folder": path, "gently":
bool} is answered with {"id": n, "rows": [[logprob or null, …], …], "seconds": …, "cpu_s": …}, or with {"id": n,
"failed": why} when the adapter is at fault, or {"id": n, "away": why} when the machine is.
"""

from __future__ import annotations

import gc
import json
import math
import os
import socket
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from training.probe import model as models
from training.probe.sandbox import Bounds
from training.probe.trial import CannotFork, attempt


def main(
    base: Annotated[Path, typer.Option(help="The base's folder.")],
    fd: Annotated[int, typer.Option(help="The socket to answer on.")],
    timeout_s: Annotated[float, typer.Option(help="Longest try.")] = 30.0,
    memory_gib: Annotated[float, typer.Option(help="Memory of a try, on top of the base's.")] = 2.0,
    idle_s: Annotated[float, typer.Option(help="Silence after which the process ends.")] = 600.0,
) -> None:
    """Keep a base warm and try adapters on it."""
    import torch

    began = time.monotonic()
    # A pool of threads would not survive the fork, and the child would wait for it for ever.
    torch.set_num_threads(1)
    line = socket.socket(fileno=fd)
    bounds = Bounds(timeout_s=timeout_s, memory_bytes=int(memory_gib * (1 << 30)))
    warm = models.warm(base.resolve())
    _warm_up(warm)
    gc.collect()
    gc.freeze()
    confined = sorted(attempt(bytes, bounds).granted)
    _say(line, prompts=warm.prompts, base=warm.base, confined=confined, seconds=time.monotonic() - began)
    for asked in _asked(line, idle_s):
        _say(line, id=asked["id"], **_try(warm, asked, bounds, line))
    os._exit(0)  # there is nothing to save, and taking a model apart takes time


def _try(warm: models.Warm, asked: dict[str, Any], bounds: Bounds, line: socket.socket) -> dict[str, Any]:
    folder = Path(asked["folder"])

    def work() -> bytes:
        found = models.rows(models.adapted(warm.model, folder), warm.prompts)
        return array("d", [value for row in found for value in row]).tobytes()

    try:
        outcome = attempt(work, bounds, (folder,), watch=line.fileno(), gently=asked["gently"])
    except CannotFork as error:
        return {"away": f"no process could be started: {error.strerror}"}
    spent = {"seconds": outcome.seconds, "cpu_s": outcome.cpu_s}
    if outcome.starved:
        return {"away": f"it had the processor for {outcome.cpu_s:.1f} s of {outcome.seconds:.1f} s", **spent}
    if outcome.failed:
        return {"failed": outcome.failed, **spent}
    wanted = sum(len(prompt) - 1 for prompt in warm.prompts)
    if len(outcome.answer) != wanted * 8:
        return {"failed": f"it answered {len(outcome.answer)} bytes instead of {wanted * 8}", **spent}
    values = iter(array("d", outcome.answer))
    found = [[_shown(next(values)) for _ in prompt[1:]] for prompt in warm.prompts]
    return {"rows": found, **spent}


def _warm_up(warm: models.Warm) -> None:
    """Do in the parent once what every child will do, so that none has to import or set up anything."""
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, part in warm.model.named_modules() if _is_linear(part)}
    with tempfile.TemporaryDirectory() as scratch:
        made = get_peft_model(warm.model, LoraConfig(r=1, target_modules=sorted(names - {"lm_head"})[:1]))
        made.save_pretrained(scratch)
        made.unload()
        adapted = models.adapted(warm.model, Path(scratch))
        models.rows(adapted, warm.prompts)
        adapted.unload()


def _is_linear(part: Any) -> bool:
    import torch

    return isinstance(part, torch.nn.Linear)


def _asked(line: socket.socket, idle_s: float) -> Iterator[dict[str, Any]]:
    """Requests as they come; the end of them is the end of the process."""
    line.settimeout(idle_s)
    with line.makefile("rb") as lines:
        while True:
            try:
                said = lines.readline()
            except TimeoutError:
                return
            if not said:
                return
            yield json.loads(said)


def _say(line: socket.socket, **fields: Any) -> None:
    line.sendall(json.dumps(fields, allow_nan=False).encode() + b"\n")


def _shown(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)  # the last line in the log is the error
    app.command()(main)
    app()
