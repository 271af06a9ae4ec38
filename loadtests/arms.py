"""Experiments as an outsider opens, reads and stops them: by the control routes, and once by the CLI."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from loadtests.stack import Up, call

Document = Mapping[str, Any]

ARMS = ("control", "treatment")
#: Half of the units in each of two arms, at once.
STRAIGHT_TO_HALF = ({"share": 5000, "at_least_s": 0},)


def opened(up: Up, name: str, numbers: tuple[int, int], *, metrics: Sequence[Document], **fields: object) -> str:
    """Open an experiment on `name@live` that is half and half from its first moment, the control's version first;
    returns its id."""
    body = {
        "name": name,
        "alias": "live",
        "arms": [{"name": arm, "number": number} for arm, number in zip(ARMS, numbers, strict=True)],
        "metrics": list(metrics),
        "ramp": list(STRAIGHT_TO_HALF),
        **fields,
    }
    status, data = call("POST", f"{up.url}/v1/experiments", body, up.key)
    if status != 201:
        raise SystemExit(f"The experiment was not opened: {status} {data[:2000]!r}")
    return str(json.loads(data)["id"])


def shown(up: Up, id_: str, *, counts: bool = False) -> Document:
    """What the route tells of an experiment; `counts` are of everything that was recorded."""
    query = "?counts=true" if counts else ""
    status, data = call("GET", f"{up.url}/v1/experiments/{id_}{query}", None, up.key)
    if status != 200:
        raise SystemExit(f"The experiment cannot be read: {status} {data[:2000]!r}")
    found: Document = json.loads(data)
    return found


def shown_by_cli(up: Up, id_: str) -> Document:
    """The same, by the command."""
    argv = [sys.executable, "-m", "gateway.cli", "experiments", "show", id_, "--json"]
    said = subprocess.run(argv, env=up.running.env, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(f"`graftline experiments show` failed: {said.stdout[-1000:]} {said.stderr[-1000:]}")
    found: Document = json.loads(said.stdout)
    return found


def stopped(up: Up, id_: str) -> None:
    status, data = call("POST", f"{up.url}/v1/experiments/{id_}/stop", {"why": "loadtest"}, up.key)
    if status != 200:
        raise SystemExit(f"The experiment was not stopped: {status} {data[:2000]!r}")


def until(up: Up, id_: str, done: Callable[[Document], bool], *, timeout_s: float) -> tuple[Document, bool]:
    """What is shown once `done` says so, and whether it ever did."""
    limit = time.monotonic() + timeout_s
    while not done(found := shown(up, id_)):
        if time.monotonic() > limit:
            return found, False
        time.sleep(0.25)
    return found, True


def estimate(found: Document, metric: str) -> Document:
    """The newest estimate of a metric; empty while there is none."""
    return next((each for each in found.get("estimates") or () if each["metric"] == metric), {})


def points_at(up: Up, name: str) -> int:
    """The version that `name@live` points at; 0 for none."""
    status, data = call("GET", f"{up.url}/v1/adapters?name={name}", None, up.key)
    pointers = json.loads(data)["aliases"] if status == 200 else ()
    return next((int(each["number"]) for each in pointers if each["alias"] == "live"), 0)


def stored_with(up: Up, metadata: Mapping[str, str], wanted: set[str]) -> set[str]:
    """As `stored`, once it holds what is wanted or has had the time to."""
    limit = time.monotonic() + 20
    while not wanted <= (found := stored(up, metadata)) and time.monotonic() < limit:
        time.sleep(1)
    return found


def stored(up: Up, metadata: Mapping[str, str]) -> set[str]:
    """Ids of the stored completions that carry this metadata, page by page."""
    wanted = "&".join(f"metadata%5B{quote(key)}%5D={quote(value)}" for key, value in metadata.items())
    ids: set[str] = set()
    after = ""
    while True:
        query = f"{wanted}&limit=100" + (f"&after={quote(after)}" if after else "")
        status, data = call("GET", f"{up.url}/v1/chat/completions?{query}", None, up.key)
        if status != 200:
            raise SystemExit(f"Stored completions cannot be listed: {status} {data[:500]!r}")
        page = json.loads(data)
        ids |= {str(each["id"]) for each in page["data"]}
        if not page["has_more"]:
            return ids
        after = str(page["last_id"])
