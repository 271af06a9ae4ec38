"""`graftline doctor`: what was chosen on this machine, and what is wrong with it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import typer

from adapters.errors import AdapterError
from gateway.control import find_base, open_control
from gateway.engines.process import devices, launch
from gateway.engines.process.flags import RefusedFlags
from gateway.settings import Settings, SettingsError, load
from gateway.verbs.console import table
from monitoring.records.errors import RecordsError

DISK_BYTES_MIN = 1 << 30
MEMORY_BYTES_MIN = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One look: what was found, and what to do when it is not good."""

    what: str
    found: str
    good: bool = True
    todo: str = ""


def doctor() -> None:
    """Look at settings, engine, base, state and machine; exit with 1 when something would stop `graftline up`."""
    findings = list(examine(load(os.environ)))
    table(
        "graftline doctor",
        ("", "what", "found", "what to do"),
        (("ok" if f.good else "BAD", f.what, f.found, f.todo) for f in findings),
    )
    if not all(f.good for f in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in the order in which `up` would meet them."""
    yield Finding(what="python", found=f"{sys.version.split()[0]} at {sys.prefix}")
    yield _attempt("base", lambda: _base(settings), "Set GRAFTLINE_BASE to tidewell, a folder or a cached hub id.")
    yield from _engine(settings)
    yield _attempt("control state", lambda: _state(settings), "See to the database, or set GRAFTLINE_HOME elsewhere.")
    yield _disk(settings)
    yield _memory()
    yield _port(settings)


def _base(settings: Settings) -> str:
    base = find_base(settings)
    return f"{base.name}, {base.digest[:19]}, {base.folder}"


def _engine(settings: Settings) -> Iterator[Finding]:
    if settings.engine.urls:
        yield Finding(what="engines", found=", ".join(settings.engine.urls) + " (elsewhere)")
        return
    gpus = devices.find_gpus()
    found = ", ".join(f"{gpu.name} {gpu.memory_bytes >> 30} GiB" for gpu in gpus) or "none, the CPU engine is used"
    yield Finding(what="GPUs", found=found)
    installed = devices.find_installed(sys.executable)
    if installed is None:
        yield Finding(what="engine", found="vLLM is not installed", good=False, todo="Run `make setup`.")
        return
    yield Finding(
        what="engine",
        found=f"{installed.distribution} {installed.version} on {installed.device}",
        good=installed.plugin,
        todo="" if installed.plugin else "Our vLLM plugin is not installed beside it: run `make setup`.",
    )
    yield _attempt("engine settings", lambda: _launch(settings), "See `[engine]` in graftline.toml.")


def _launch(settings: Settings) -> str:
    chosen = settings.engine
    planned = launch.plan(
        launch.EngineSettings(
            model=str(find_base(settings).folder),
            served_name=settings.served_name,
            socket=settings.engine_socket,
            device=chosen.device,
            max_loras=chosen.max_loras,
            max_cpu_loras=chosen.max_cpu_loras,
            max_lora_rank=chosen.max_lora_rank,
            args=chosen.args,
        ),
        os.environ,
    )
    return f"{planned.slots.batch} adapters in a batch, {planned.slots.cached} loaded, rank {chosen.max_lora_rank}"


def _state(settings: Settings) -> str:
    control = open_control(settings)
    return f"revision {control.revision()}, {len(control.keys.list())} keys, {len(control.adapters.list())} versions"


def _disk(settings: Settings) -> Finding:
    place = settings.home.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return Finding(
        what="disk",
        found=f"{free / 1e9:.1f} GB free at {place}",
        good=free > DISK_BYTES_MIN,
        todo=""
        if free > DISK_BYTES_MIN
        else "Records wait in memory and are dropped when the disk is full: free some.",
    )


def _memory() -> Finding:
    total = devices.host_bytes()
    good = total > MEMORY_BYTES_MIN
    return Finding(
        what="memory",
        found=f"{total / 1e9:.1f} GB",
        good=good,
        todo="" if good else "The engine alone takes about 3 GB.",
    )


def _port(settings: Settings) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            found = f"{settings.host}:{settings.port} {error.strerror}"
            return Finding(what="port", found=found, good=False, todo="Stop what uses it, or set GRAFTLINE_PORT.")
    return Finding(what="port", found=f"{settings.host}:{settings.port} is free")


def _attempt(what: str, look: Callable[[], str], todo: str) -> Finding:
    try:
        return Finding(what=what, found=look())
    except (
        AdapterError,
        RecordsError,
        RefusedFlags,
        SettingsError,
        devices.NoDevice,
        launch.BadLaunch,
        OSError,
    ) as error:
        return Finding(what=what, found=str(error)[:300], good=False, todo=todo)
