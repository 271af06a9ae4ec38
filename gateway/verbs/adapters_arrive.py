"""`graftline adapters register` and `sign`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.errors import BadSource
from adapters.intake import Checked
from adapters.lifecycle import State
from adapters.signing import sign as sign_folder
from gateway.api.control.adapters_documents import looked
from gateway.arrival import Wish, arrive, carried_from, look, rules
from gateway.control import Control, open_control, wait_verified
from gateway.settings import load
from gateway.verbs import remote
from gateway.verbs.console import bar, say, table

WHO = "cli"

Stop = Annotated[list[str] | None, typer.Option(help="A stop string that the version carries; may be repeated.")]


def register(
    source: Annotated[str, typer.Argument(help="A folder, an archive, s3://…, https://… or hub:ORG/NAME@REVISION.")],
    name: Annotated[str, typer.Option(help="The adapter's name.")],
    note: Annotated[str, typer.Option(help="A line about this version.")] = "",
    promote: Annotated[bool, typer.Option(help="Make it live once it is verified.")] = False,
    wait_s: Annotated[float, typer.Option(help="How long to wait for an engine to prove it.")] = 60.0,
    check: Annotated[bool, typer.Option("--check", "--dry-run", help="Only check; store nothing.")] = False,
    system_file: Annotated[Path | None, typer.Option(help="A system prompt that the version carries.")] = None,
    sampling: Annotated[str, typer.Option(help="Sampling defaults that the version carries, as JSON.")] = "",
    stop: Stop = None,
    force_noop: Annotated[bool, typer.Option(help="Take an adapter that changes nothing.")] = False,
    unprobed: Annotated[bool, typer.Option(help="Take it where nothing can probe it off the shared engine.")] = False,
    to: Annotated[str, typer.Option(help="Register at this gateway instead of here: its URL.")] = "",
    key_file: Annotated[Path | None, typer.Option(help="The key for that gateway.")] = None,
) -> None:
    """Check an adapter, store it, and wait until an engine has loaded and proved it."""
    said = _carried(system_file, sampling, stop)
    fields = {"name": name, "note": note, "wait_s": wait_s, "force_noop": force_noop, "unprobed": unprobed}
    if to:
        _elsewhere(to, key_file, source, {**fields, "check": check, **({"carried": said} if said else {})})
        return
    settings = load(os.environ)
    control = open_control(settings)
    wish = Wish(name=name, who=WHO, note=note, carried=carried_from(said), force_noop=force_noop, unprobed=unprobed)
    with bar("reading") as progress:
        allowed = rules(settings, control.limits, anywhere=True)
        found = (look if check else arrive)(control, source, allowed, wish, progress)
    if isinstance(found, Checked):
        _report(looked(name, found))
    else:
        _proved(control, found.name, found.number, wait_s=wait_s, promote=promote)


def sign(
    folder: Annotated[Path, typer.Argument(help="A PEFT adapter folder.")],
    key: Annotated[Path, typer.Option(help="An EC private key (PEM).")],
    password: Annotated[str, typer.Option(envvar="GRAFTLINE_SIGNING_PASSWORD", help="The key's password.")] = "",
) -> None:
    """Sign an adapter's files; the signature becomes one of them."""
    say(f"signed: {sign_folder(folder, key, password=password)}")


def _proved(control: Control, name: str, number: int, *, wait_s: float, promote: bool) -> None:
    version = control.adapters.get(name, number)
    say(f"{version.name}:{version.number} {version.digest} {version.state} (covers {version.coverage})")
    version = wait_verified(control, version, timeout_s=wait_s)
    if version.state is not State.VERIFIED:
        say(f"still {version.state}: no engine has proved it yet; `graftline adapters show {name}` tells when one has")
        raise typer.Exit(2)
    say(f"verified: {version.note}" if version.note else "verified")
    if promote:
        alias = control.registry.promote(name, version.number, who=WHO, why="register --promote")
        say(f"{alias.name}@{alias.alias} → {alias.number}")


def _report(found: dict[str, Any]) -> None:
    rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in found.items() if name != "object"]
    table("It would be registered", ("field", "value"), rows)


def _elsewhere(to: str, key_file: Path | None, source: str, fields: dict[str, Any]) -> None:
    key = key_file.read_text().strip() if key_file and key_file.is_file() else ""
    if not key:
        raise BadSource("Name with --key-file the file that holds the key for that gateway.")
    path = Path(source.removeprefix("file://")).expanduser()
    if not path.exists():
        found = remote.send_source(to, key, source, fields)
    else:
        parts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        with bar("sending") as progress:
            found = (remote.send_folder if path.is_dir() else remote.send_archive)(to, key, path, parts, progress)
    if found.get("object") == "adapter.check":
        _report(found)
        return
    say(f"{found['id']} {found['digest']} {found['state']} (covers {found['coverage']})")
    if found["state"] != State.VERIFIED:
        raise typer.Exit(2)


def _carried(system_file: Path | None, sampling: str, stop: list[str] | None) -> dict[str, Any] | None:
    """What the options say of graftline.json; None where they say nothing."""
    said: dict[str, Any] = {"stop": stop} if stop else {}
    try:
        if system_file is not None:
            said["system"] = system_file.read_text()
        if sampling:
            said["sampling"] = json.loads(sampling)
    except (OSError, ValueError) as error:
        raise BadSource(f"--system-file must name a text file, and --sampling must be JSON: {error}") from error
    return said or None
