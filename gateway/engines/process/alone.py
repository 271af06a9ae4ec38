"""`python -m gateway.engines.process.alone`: one engine as `graftline up` starts it, and nothing around it.

For measurements of another floor, which may start the gateway's programs but not import them. Its standard input is a
socket; when the other end closes, however that came, the engine and all its processes are gone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.engines.process import launch
from training.launchers.local import KEEPER


def main(
    base: Annotated[Path, typer.Option(help="The folder of the base.")],
    socket: Annotated[Path, typer.Option(help="Where it listens.")],
    name: Annotated[str, typer.Option(help="What the base is called.")],
) -> None:
    """Become the engine's keeper."""
    listens_on = launch.make_socket_folder(socket)
    if listens_on != socket:
        raise typer.BadParameter(f"{socket} is too long for the kernel; take a path of at most 107 bytes")
    settings = launch.EngineSettings(model=str(base), served_name=name, socket=listens_on)
    plan = launch.plan(settings, os.environ)
    theirs = os.dup(0)
    os.set_inheritable(theirs, True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.execve(sys.executable, [sys.executable, "-I", "-S", str(KEEPER), str(theirs), *plan.argv], dict(plan.env))


if __name__ == "__main__":
    typer.run(main)
