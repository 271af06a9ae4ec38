"""What a job names to learn from: an uploaded file (`file-…`), or a compiled dataset (`sha256:…`).

A file becomes a dataset before a job reads it (`training.files.compiled`): what clients send goes the same way as what
comes from records, and every result can say by one digest what it was made from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from training.data.errors import DatasetDamaged, DatasetNotFound
from training.data.parquet import find, load
from training.data.values import Kind
from training.files.errors import BadTrainingFile, FileNotFound
from training.files.shelf import Shelf
from training.files.store import Files
from training.files.values import File
from training.jobs.errors import JobRefused
from training.jobs.values import Job

FILE_ID: Final = re.compile(r"file-[0-9A-Za-z_-]{1,100}")
DATASET: Final = re.compile(r"sha256:[0-9a-f]{4,64}")
Param = Literal["training_file", "validation_file", "replay"]
#: What a dataset of one kind is made of: rows of these kinds.
_FROM: Final[dict[Kind, frozenset[Kind]]] = {
    "sft": frozenset({"sft"}),
    "kto": frozenset({"kto"}),
    "dpo": frozenset({"dpo", "reward"}),
    "reward": frozenset({"dpo", "reward"}),
    "rl": frozenset({"rl", "sft"}),
    "text": frozenset({"text"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A source of rows. `held` counts the rows that are kept for evaluation; of a file that is decided later."""

    name: str
    kind: Kind
    rows: int
    held: int = 0
    path: Path
    file: File | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelves:
    """Where sources are looked for. `datasets` is the folder that `graftline datasets` writes to."""

    files: Files
    shelf: Shelf
    datasets: Path

    def source(self, tenant: str, name: str, *, param: Param, now: float) -> Found:
        """What stands behind a name. Raises BadTrainingFile that blames `param`."""
        if FILE_ID.fullmatch(name):
            return self._file(tenant, name, param, now)
        if DATASET.fullmatch(name):
            return self._dataset(tenant, name, param)
        raise BadTrainingFile(
            f"{param} is {name[:100]!r}; it must be the id of an uploaded file (file-…) or a dataset's digest "
            "(sha256:…), as `graftline datasets show` lists them.",
            param=param,
        )

    def source_of(self, job: Job, param: Param, name: str, *, now: float) -> Found:
        """The same for a job. Raises JobRefused."""
        try:
            return self.source(job.tenant, name, param=param, now=now)
        except BadTrainingFile as error:
            raise JobRefused(str(error), code=error.code, param=param) from error

    def _file(self, tenant: str, name: str, param: Param, now: float) -> Found:
        try:
            file = self.files.get(tenant, name)
            path = self.shelf.path(file)
        except FileNotFound as error:
            raise BadTrainingFile(str(error), param=param) from error
        if file.gone(now):
            raise BadTrainingFile(f"{name} has expired. Upload it again.", param=param)
        if file.purpose != "fine-tune":
            raise BadTrainingFile(
                f"{name} was uploaded for {file.purpose}; a job learns from files of purpose fine-tune.", param=param
            )
        if file.state == "error" or file.kind is None:
            raise BadTrainingFile(f"{name} cannot be learnt from: {file.details}", param=param)
        return Found(name=name, kind=file.kind, rows=file.rows, path=path, file=file)

    def _dataset(self, tenant: str, name: str, param: Param) -> Found:
        try:
            folder = find(self.datasets, name)
            manifest = load(folder)
        except (DatasetNotFound, DatasetDamaged) as error:
            raise BadTrainingFile(str(error), param=param) from error
        if manifest.rules.get("tenant") not in ("", None, tenant):
            raise BadTrainingFile(f"There is no dataset {name[:100]!r} of this tenant.", param=param)
        parts = manifest.parts
        return Found(
            name=manifest.digest,
            kind=manifest.kind,
            rows=parts["train"].rows,
            held=parts["evaluation"].rows,
            path=folder,
        )


def serves(found: Found, wanted: Kind) -> bool:
    """Whether rows of this source can become a dataset of that kind; a compiled dataset has the kind that it has."""
    return found.kind in _FROM[wanted] if found.file is not None else found.kind == wanted or _alike(found, wanted)


def _alike(found: Found, wanted: Kind) -> bool:
    """Pairs are pairs: reward models and preference losses learn from the same columns."""
    return {found.kind, wanted} == {"dpo", "reward"}
