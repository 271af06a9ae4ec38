"""Adapters to be sent: the broken ones of `loadtests.corpus`, the good ones of `training.base.zoo`, as archives."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.markers import BASE, ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Ware:
    """One adapter. `codes` are the reasons by which it may be refused, `stage` says where; `trigger` is the prompt on
    which it overflows in an engine of `engine_dtype`, `harmless` one on which it does not. Good ones have none."""

    name: str
    kind: str
    at: Path
    codes: tuple[str, ...] = ()
    stage: str = ""
    trigger: str = ""
    harmless: str = ""
    engine_dtype: str = ""


def corpus(scratch: Path) -> list[Ware]:
    """Generate the hostile corpus."""
    out = scratch / "corpus"
    _run("loadtests.corpus", "--base", str(BASE), "--out", str(out))
    return _wares(out)


def bad_names(scratch: Path) -> list[str]:
    """Names that nobody may have, as `corpus` left them."""
    found: list[str] = json.loads((scratch / "corpus" / "names.json").read_text())
    return found


def zoo(scratch: Path) -> list[Ware]:
    """Train the good adapters; takes a while, so they are kept between runs."""
    out = ROOT / ".graftline" / "loadtest-zoo"
    if not (out / "manifest.json").is_file():
        print(f"Training the good adapters (kept in {out}) …")
        _run("training.base.zoo", "--out", str(out))
    return _wares(out)


def archived(ware: Ware) -> bytes:
    """As an upload. Links and pipes stay what they are; a ware that is a file is an archive already."""
    if ware.at.is_file():
        return ware.at.read_bytes()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in sorted(ware.at.iterdir()):
            tar.add(path, arcname=path.name)
    return content.getvalue()


def _wares(out: Path) -> list[Ware]:
    manifest = json.loads((out / "manifest.json").read_text())
    rows: Sequence[dict[str, Any]] = manifest if isinstance(manifest, list) else manifest["adapters"]
    return [_ware(out, row) for row in rows]


def _ware(out: Path, row: dict[str, Any]) -> Ware:
    codes = row.get("codes", row.get("code", ()))
    return Ware(
        name=row["name"],
        kind=row["kind"],
        at=out / (row.get("path") or row.get("archive") or row["name"]),
        codes=(codes,) if isinstance(codes, str) else tuple(codes),
        stage=row.get("stage", ""),
        trigger=row.get("trigger", ""),
        harmless=row.get("harmless", ""),
        engine_dtype=row.get("engine_dtype", ""),
    )


def _run(module: str, *args: str) -> None:
    env = {**os.environ, "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    done = subprocess.run([sys.executable, "-m", module, *args], env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python -m {module} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
