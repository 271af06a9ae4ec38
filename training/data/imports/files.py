"""The rows of a file, each with its line number: JSONL, JSON, CSV, text, Parquet. Nothing in it is run."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import orjson

from training.data.errors import BadFile, NoExtra

Container: TypeAlias = Literal["jsonl", "json", "csv", "tsv", "text", "parquet"]
CONTAINERS: tuple[Container, ...] = get_args(Container)
_BY_SUFFIX: dict[str, Container] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
    ".parquet": "parquet",
}
_LINE_BYTES_MAX = 16 << 20
_WHOLE_BYTES_MAX = 1 << 30
_BOM = b"\xef\xbb\xbf"


class BadLine(Exception):
    """One line cannot be a row; the message says why. Never leaves this room."""


def container(path: Path) -> Container:
    """What a file is by its name. Raises BadFile."""
    found = _BY_SUFFIX.get(path.suffix.lower())
    if found is None:
        raise BadFile(path.name, [(0, f"its name ends with none of {', '.join(_BY_SUFFIX)}; say what it is")])
    return found


def lines(path: Path, kind: Container) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """(line number, its fields or why there are none), from 1. For JSON and Parquet a row's number. Raises BadFile."""
    try:
        if kind == "jsonl":
            yield from _jsonl(path)
        elif kind == "json":
            yield from _json(path)
        elif kind in ("csv", "tsv"):
            yield from _csv(path, "\t" if kind == "tsv" else ",")
        elif kind == "text":
            yield from _text(path)
        else:
            yield from _parquet(path)
    except OSError as problem:
        raise BadFile(path.name, [(0, f"it cannot be read: {problem.strerror or problem}")]) from problem


def digest(path: Path) -> str:
    """Of the file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LINE_BYTES_MAX):
            number += 1
            if number == 1:
                line = line.removeprefix(_BOM)
            if len(line) >= _LINE_BYTES_MAX:
                while line and not line.endswith(b"\n"):
                    line = file.readline(_LINE_BYTES_MAX)
                yield number, BadLine(f"longer than {_LINE_BYTES_MAX >> 20} MiB")
            elif line.strip():
                yield number, _object(line)


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    if path.stat().st_size > _WHOLE_BYTES_MAX:
        raise BadFile(path.name, [(0, "JSON of this size cannot be read at once; write one object a line (.jsonl)")])
    try:
        rows = orjson.loads(path.read_bytes().removeprefix(_BOM))
    except orjson.JSONDecodeError as problem:
        raise BadFile(path.name, [(problem.lineno, f"not JSON: {problem.msg}")]) from problem
    rows = rows.get("data") if type(rows) is dict and "data" in rows else rows
    if type(rows) is not list:
        raise BadFile(path.name, [(0, "its JSON is no list of rows")])
    for number, each in enumerate(rows, 1):
        yield number, each if type(each) is dict else BadLine("not an object")


def _csv(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names: list[str] | None = None
        while True:
            number = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as problem:
                yield number, BadLine(f"not {'TSV' if delimiter != ',' else 'CSV'}: {problem}")
                continue
            if fields is None:
                return
            if names is None:
                names = [name.strip().lower() for name in fields]
            elif fields and any(fields):
                yield number, _fields(names, fields)


def _fields(names: list[str], fields: list[str]) -> dict[str, Any] | BadLine:
    if len(fields) != len(names):
        return BadLine(f"{len(fields)} fields where the first line names {len(names)}")
    if any("\udc80" <= each <= "\udcff" for field in fields for each in field):
        return BadLine("not UTF-8")
    return {name: field for name, field in zip(names, fields, strict=True) if field}


def _text(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """Passages, parted by empty lines."""
    begun, held = 0, bytearray()
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LINE_BYTES_MAX):
            number += 1
            line = line.removeprefix(_BOM) if number == 1 else line
            if line.strip() and len(held) < _LINE_BYTES_MAX:
                begun = begun or number
                held += line
            elif held:
                yield begun, _passage(held)
                begun, held = 0, bytearray()
    if held:
        yield begun, _passage(held)


def _passage(held: bytearray) -> dict[str, Any] | BadLine:
    try:
        return {"text": held.decode().strip()}
    except UnicodeDecodeError:
        return BadLine("not UTF-8")


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as problem:
        raise NoExtra("pyarrow") from problem
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                for each in batch.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in each.items() if value is not None}
    except pyarrow.ArrowException as problem:
        raise BadFile(path.name, [(number, f"not Parquet: {str(problem).splitlines()[0]}")]) from problem


def _object(line: bytes) -> dict[str, Any] | BadLine:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as problem:
        return BadLine(f"not JSON: {problem.msg} at column {problem.colno}")
    return document if type(document) is dict else BadLine("not an object")
