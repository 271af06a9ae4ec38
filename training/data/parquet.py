"""Rows on disk: a Parquet file for each split, and the folder that they stand in. pyarrow is imported here only."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.data.errors import DatasetDamaged, DatasetNotFound, NoExtra
from training.data.manifest import FILE, Manifest, Part, canonical, parse
from training.data.values import PAIRED, SPLITS, Kind, Split

_AT_ONCE = 1000
_DIGEST = "sha256:"


class Writer:
    """One split's rows, some at a time; `close` says what was written."""

    def __init__(self, path: Path, kind: Kind) -> None:
        arrow, parquet = _modules()
        self._arrow = arrow
        self._schema = _schema(arrow, kind)
        self._file = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._seen = hashlib.sha256()
        self._waiting: list[dict[str, Any]] = []
        self._rows = self._tokens = 0

    def add(self, row: dict[str, Any], tokens: int) -> None:
        self._seen.update(canonical(row) + b"\n")
        self._waiting.append(row)
        self._rows += 1
        self._tokens += tokens
        if len(self._waiting) >= _AT_ONCE:
            self._flush()

    def close(self) -> Part:
        self._flush()
        self._file.close()
        return Part(rows=self._rows, tokens=self._tokens, digest=_DIGEST + self._seen.hexdigest())

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def rows(folder: Path, split: Split) -> Iterator[dict[str, Any]]:
    """A split's rows, in their order. Raises DatasetNotFound."""
    _, parquet = _modules()
    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise DatasetNotFound(f"{folder} holds no {split}.parquet.")
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_AT_ONCE):
            yield from batch.to_pylist()


def put(part: Path, root: Path, manifest: Manifest, reports: dict[str, bytes]) -> Path:
    """Give a folder of finished splits its name under `root`; one that is there already is the same one."""
    for name, body in {FILE: canonical(manifest.document()), **reports}.items():
        (part / name).write_bytes(body)
    for path in part.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    folder = root / manifest.digest.removeprefix(_DIGEST)
    if folder.exists():
        shutil.rmtree(part)
    else:
        part.rename(folder)
    return folder


def find(root: Path, name: str) -> Path:
    """The folder of a dataset: a path, or the beginning of a digest. Raises DatasetNotFound."""
    direct = Path(name)
    if (direct / FILE).is_file():
        return direct
    wanted = name.removeprefix(_DIGEST)
    found = [path.parent for path in root.glob(f"*/{FILE}") if path.parent.name.startswith(wanted)]
    if len(found) != 1 or len(wanted) < 4:
        raise DatasetNotFound(
            f"{len(found)} datasets under {root} are called {name!r}; give a folder, or more than 4 digits of a digest "
            "that one dataset alone begins with."
        )
    return found[0]


def load(folder: Path, *, verify: bool = False) -> Manifest:
    """A dataset's manifest. With `verify` its rows are read, and counted as what its name stands for.

    Raises DatasetNotFound, DatasetDamaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise DatasetNotFound(f"{folder} is no dataset: it has no {FILE}.")
    manifest = parse(path.read_bytes())
    if verify:
        for split in SPLITS:
            seen, count = hashlib.sha256(), 0
            for row in rows(folder, split):
                seen.update(canonical(row) + b"\n")
                count += 1
            if _DIGEST + seen.hexdigest() != manifest.parts[split].digest:
                raise DatasetDamaged(
                    f"{folder}/{split}.parquet does not hold the {count} rows that its name stands for."
                )
    return manifest


def _modules() -> Sequence[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as problem:
        raise NoExtra("pyarrow") from problem
    return pyarrow, parquet


def _schema(arrow: Any, kind: Kind) -> Any:
    text, ids, mask = arrow.string(), arrow.list_(arrow.int32()), arrow.list_(arrow.int8())
    turns = arrow.list_(arrow.struct([("role", text), ("content", text)]))
    if kind == "text":
        fields = [("text", text), ("input_ids", ids), ("completion_mask", mask)]
    elif kind in PAIRED:
        fields = [("prompt", turns), ("chosen", turns), ("rejected", turns)]
        fields += [(f"{name}_ids", ids) for name in ("prompt", "chosen", "rejected")]
        fields += [("chosen_mask", mask), ("rejected_mask", mask)]
    elif kind == "rl":
        fields = [("prompt", turns), ("reference", text), ("score", arrow.float64()), ("prompt_ids", ids)]
    elif kind == "kto":
        fields = [("prompt", turns), ("completion", turns), ("label", arrow.bool_())]
        fields += [("prompt_ids", ids), ("completion_ids", ids), ("completion_mask", mask)]
    else:
        fields = [("prompt", turns), ("completion", turns), ("input_ids", ids), ("completion_mask", mask)]
    fields += [("weight", arrow.float64()), ("origin", text), ("at", arrow.float64()), ("owner", arrow.int64())]
    fields += [(name, text) for name in ("route", "policy", "adapter", "arm", "experiment")]
    fields += [(name, arrow.list_(text)) for name in ("inferences", "words")]
    return arrow.schema(fields)
