"""Answers that came already: an evaluation whose process was killed goes on where it stood, and asks nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson


class Kept:
    """Answers by what was asked, in a file when there is one: one line each, a torn last one is asked again."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._found: dict[str, Any] = {}
        if path is not None and path.is_file():
            for line in path.read_bytes().splitlines():
                try:
                    key, answer = orjson.loads(line)
                except (orjson.JSONDecodeError, ValueError):
                    continue
                self._found[key] = answer
        self._file = path.open("ab") if path is not None else None
        if self._file is not None and self._file.tell():
            self._file.write(b"\n")  # ends a line that was torn

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """What was asked for a finished evaluation is of no more use."""
        self.close()
        if kind is None and self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """The file stays."""
        if self._file is not None:
            self._file.close()

    def get(self, who: str, body: Mapping[str, Any]) -> Any:
        """What was made of the answer, or None."""
        return self._found.get(_key(who, body))

    def put(self, who: str, body: Mapping[str, Any], answer: Any) -> None:
        """Keep what was made of an answer."""
        key = _key(who, body)
        self._found[key] = answer
        if self._file is not None:
            self._file.write(orjson.dumps([key, answer]) + b"\n")
            self._file.flush()


def _key(who: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(who.encode() + b"\n" + orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
