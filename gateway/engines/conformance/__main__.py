"""`python -m gateway.engines.conformance`: start the engine, replay, print a table, exit 1 naming what changed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from gateway.engines.conformance import answers, hostile, loading, mixing, outside
from gateway.engines.conformance.bench import Bench, Check, Found, Marker
from gateway.engines.errors import EngineError
from gateway.engines.process import devices, launch
from gateway.engines.process.supervisor import Child, ChildFailed, State, Supervisor
from gateway.engines.vllm import Vllm
from training.share import CALM

WORDS = ("alpha", "bravo", "charlie", "delta")
CHECKS: tuple[Check, ...] = (
    *mixing.CHECKS,
    *loading.CHECKS,
    *answers.CHECKS,
    *outside.CHECKS,
    *hostile.CHECKS,
)
_CHECK_TIMEOUT_S = 60.0
_TOO_LONG_S = 300.0


class Interrupted(Exception):
    """The engine was told to stop before all was checked."""


def main(
    engine_python: Annotated[str, typer.Option(help="Interpreter that has vLLM and this project.")] = sys.executable,
    base: Annotated[Path | None, typer.Option(help="Folder of the base model; the embedded one if not given.")] = None,
    markers: Annotated[Path, typer.Option(help="Where marker adapters are kept between runs.")] = Path(
        ".graftline/markers"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    only: Annotated[str, typer.Option(help="Only checks whose name or expectation contains this.")] = "",
    without_plugin: Annotated[bool, typer.Option(help="Leave our plugin out, to see what it cures.")] = False,
) -> None:
    """Replay every behaviour of the installed vLLM that we rely on."""
    import training.base

    console = Console(width=None if sys.stdout.isatty() else 180)
    began = time.monotonic()
    folder = base or Path(training.base.PATH)
    words = make_markers(markers, folder, console)
    with tempfile.TemporaryDirectory(prefix="graftline-check-") as scratch:
        home = Path(scratch)
        socket = launch.make_socket_folder(home / "run" / "engine.sock")
        settings = launch.EngineSettings(
            model=str(folder), served_name="base-under-test", socket=socket, device=device, python=engine_python
        )
        try:
            plan = launch.plan(settings, os.environ)
        except (devices.NoDevice, launch.BadLaunch) as error:
            console.print(f"[red]{error}[/]")
            raise typer.Exit(2) from error
        env = dict(plan.env) | ({"VLLM_PLUGINS": "none"} if without_plugin else {})
        chosen = [check for check in CHECKS if only.lower() in f"{check.behaviour} {check.expected}".lower()]
        console.print(f"Starting {plan.installed.distribution} {plan.installed.version} on {plan.device} …")
        child = engine(plan, env, home, socket)
        rows = asyncio.run(replay(child, plan, home, settings.served_name, words, chosen, console))
    changed = [check.behaviour for check, found in rows if not found.ok]
    console.print(
        report(rows), f"{len(rows) - len(changed)} of {len(rows)} as expected, {time.monotonic() - began:.0f} s."
    )
    if changed or not rows:
        console.print(f"[red]Changed: {'; '.join(changed) or 'nothing was checked'}[/]")
        raise typer.Exit(1)


def make_markers(where: Path, base: Path, console: Console) -> list[Path]:
    """One trained marker a word, kept in `where`; what is missing is trained in a process of its own."""
    missing = [word for word in WORDS if not (where / word / "adapter_config.json").is_file()]
    if missing:
        console.print(f"Training {len(missing)} marker adapters in {where} (once) …")
        where.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "training.base.markers", "--out", str(where), "--base", str(base)]
        env = {**CALM, **os.environ}
        words = ("--words", ",".join(missing))
        done = subprocess.run([*command, *words], env=env, timeout=_TOO_LONG_S, capture_output=True, text=True)
        if done.returncode:
            console.print(f"[red]The markers could not be trained:[/]\n{done.stderr[-3000:]}", highlight=False)
            raise typer.Exit(2)
    return [where / word for word in WORDS]


def engine(plan: launch.Launch, env: dict[str, str], home: Path, socket: Path) -> Child:
    vllm = Vllm("engine", plan.url)
    return Child(
        name="engine",
        argv=plan.argv,
        env=env,
        log=home / "engine.log",
        ready=vllm.healthy,
        prepare=lambda: launch.make_socket_folder(socket),
        ready_timeout_s=_TOO_LONG_S,
        attempts_max=1,
    )


async def replay(
    child: Child,
    plan: launch.Launch,
    home: Path,
    base: str,
    words: Sequence[Path],
    checks: Sequence[Check],
    console: Console,
) -> list[tuple[Check, Found]]:
    """Run the checks one after the other; an engine that dies is the finding of the check that it died in."""
    supervisor = Supervisor([child])
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, supervisor.stop)
    rows: list[tuple[Check, Found]] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.run())
            began = time.monotonic()
            try:
                await _ready(supervisor)
                console.print(f"Ready after {time.monotonic() - began:.0f} s.")
                async with _bench(supervisor, plan, home, base, words, child.log) as bench:
                    for check in checks:
                        rows.append((check, await _one(check, bench, supervisor)))
                        console.print(f"  {'ok ' if rows[-1][1].ok else '[red]NO [/]'} {check.behaviour}")
            finally:
                supervisor.stop()
    except* Interrupted:
        console.print("[red]Interrupted.[/]")
    except* ChildFailed as failed:
        console.print(f"[red]{failed.exceptions[0]}[/]", highlight=False)
    return rows


async def _one(check: Check, bench: Bench, supervisor: Supervisor) -> Found:
    began = supervisor.status()[0].restarts
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            found = await check.run(bench)
    except TimeoutError:
        found = Found(text=f"no end after {_CHECK_TIMEOUT_S:.0f} s", ok=False)
    except (httpx.HTTPError, EngineError, RuntimeError, LookupError, TypeError, ValueError, OSError) as error:
        found = Found(text=f"{type(error).__name__}: {' '.join(str(error).split())[:100]}", ok=False)
    await asyncio.sleep(0)
    if supervisor.status()[0].restarts != began or supervisor.status()[0].state is not State.READY:
        found = Found(text=f"THE ENGINE DIED ({found.text})", ok=False)
        await _ready(supervisor)
        await _load_all(bench)
    return found


async def _ready(supervisor: Supervisor) -> None:
    state = State.STARTING
    while state is not State.READY:
        await asyncio.sleep(0.1)
        state = supervisor.status()[0].state
        if state in (State.STOPPING, State.STOPPED, State.FAILED):
            raise Interrupted


@asynccontextmanager
async def _bench(
    supervisor: Supervisor, plan: launch.Launch, home: Path, base: str, words: Sequence[Path], log: Path
) -> AsyncIterator[Bench]:
    fresh = _clones(words, home / "markers")
    vllm = Vllm("engine", plan.url)
    transport = httpx.AsyncHTTPTransport(uds=plan.url.removeprefix("unix:"), limits=httpx.Limits(max_connections=64))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30) as http:
        bench = Bench(
            http=http,
            vllm=vllm,
            base=base,
            slots=plan.slots.batch,
            device=plan.device,
            markers=tuple(next(fresh) for _ in range(plan.slots.batch)),
            folder=home,
            log=log,
            pid=lambda: supervisor.status()[0].pid,
            fresh=fresh,
        )
        await _load_all(bench)
        yield bench
    await vllm.close()


async def _load_all(bench: Bench) -> None:
    for marker in bench.markers:
        await bench.vllm.load(marker.name, str(marker.folder))


def _clones(words: Sequence[Path], where: Path) -> Iterator[Marker]:
    """Markers without end: the trained ones in turn, each time under a digest of its own."""
    from training.base.markers import clone_marker

    nonce = 0
    while True:
        for source in words:
            name = f"{source.name}@{nonce:016x}"
            yield Marker(name=name, word=source.name, folder=clone_marker(source, where / name, nonce))
            nonce += 1


def report(rows: Sequence[tuple[Check, Found]]) -> Table:
    table = Table("behaviour", "expected", "found", "ok", title="What we rely on, and what the engine does")
    for check, found in rows:
        table.add_row(check.behaviour, check.expected, found.text, "[green]yes[/]" if found.ok else "[red]NO[/]")
    return table


if __name__ == "__main__":
    typer.run(main)
