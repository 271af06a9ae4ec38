"""A file as a dataset: compiled in a process of its own, since it reads with the served model's tokenizer.

`python -m training.files.compiled FILE --kind … --base … --root …` prints the dataset's folder as JSON. The same file
and the same rules give the same dataset, which is then there already.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from training.data.errors import BadRules, CannotWrite, NothingLeft
from training.data.imports.files import Container
from training.data.rules import Rules, parse
from training.data.values import Kind
from training.errors import TrainingError
from training.files.errors import BadTrainingFile
from training.files.sources import Found, Param

_TIMEOUT_S: Final = 3600.0
#: Of a file that comes alone, so much is held out: enough rows to measure by, or a quarter where there are few.
_HELD_SHARE, _HELD_SHARE_MAX, _HELD_ROWS = 0.1, 0.25, 24
#: A person chose these rows, so none leaves for being like another; what may not be learnt is masked.
_KEPT_ALL: Final = {"near_duplicates": 1_000_000_000, "similar": 1.0, "user_cap": 0, "personal": "mask"}


def rules_for(found: Found, kind: Kind, *, seed: int, held: bool) -> Rules:
    """What the rows of an uploaded file are chosen by; `held` where some of them must evaluate."""
    share = min(_HELD_SHARE_MAX, max(_HELD_SHARE, _HELD_ROWS / max(1, found.rows))) if held else 0.0
    tenant = found.file.tenant if found.file is not None else ""
    own = {"kind": kind, "seed": seed, "tenant": tenant, "split": "prompt", "evaluation": round(share, 4)}
    return parse({**_KEPT_ALL, **own})


def compiled(
    found: Found, kind: Kind, *, root: Path, base: Path, base_digest: str, seed: int, held: bool, param: Param
) -> Path:
    """The dataset's folder. A compiled dataset is its own. Raises BadTrainingFile, CannotWrite."""
    if found.file is None:
        return found.path
    rules = rules_for(found, kind, seed=seed, held=held)
    command = [sys.executable, "-m", "training.files.compiled", str(found.path), "--as", found.file.container]
    command += ["--rules", json.dumps(rules.document()), "--root", str(root), "--base", str(base)]
    command += ["--base-digest", base_digest]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BadTrainingFile(f"{found.name} took longer than {_TIMEOUT_S:g} s to compile.", param=param) from error
    said = _said(done.stdout)
    if "folder" in said:
        return Path(said["folder"])
    told = said.get("message") or (done.stderr.strip().splitlines() or ["the process ended without a word"])[-1]
    told = told.replace(found.path.name, found.file.filename)
    if said.get("code") == CannotWrite.code:
        raise CannotWrite(root, OSError(told))
    raise BadTrainingFile(f"{found.name} cannot be learnt from: {told}", param=param)


def main(
    file: Annotated[Path, typer.Argument(help="The rows.")],
    as_: Annotated[str, typer.Option("--as", help="How they are written.")],
    rules: Annotated[str, typer.Option(help="The rules, as JSON.")],
    root: Annotated[Path, typer.Option(help="Where datasets go.")],
    base: Annotated[Path, typer.Option(help="The folder of the base.")],
    base_digest: Annotated[str, typer.Option(help="Its digest.")],
) -> None:
    """Compile one file."""
    from training.data.build import Place
    from training.data.imports.read import import_file
    from training.data.template import Template

    try:
        asked = parse(json.loads(rules))
        place = Place(root=root, template=Template(base), base=base_digest)
        made = import_file(file, asked, place, as_=_container(as_))
    except TrainingError as error:
        told = str(error).partition("\n")[0] if isinstance(error, NothingLeft) else str(error)  # without its report
        typer.echo(json.dumps({"code": error.code, "message": told}))
        raise typer.Exit(1) from error
    typer.echo(json.dumps({"folder": str(made.folder), "digest": made.digest}))


def _container(name: str) -> Container:
    from training.data.imports.files import CONTAINERS

    for each in CONTAINERS:
        if each == name:
            return each
    raise BadRules([f"--as is {name!r}; allowed: {', '.join(CONTAINERS)}"])


def _said(out: str) -> dict[str, str]:
    """The last line, where it is ours."""
    last = out.strip().rpartition("\n")[2]
    try:
        found = json.loads(last)
    except ValueError:
        return {}
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


if __name__ == "__main__":
    typer.run(main)
