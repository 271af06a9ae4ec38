"""A file read once: candidates as they come, and every bad line by its number at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.build import Built, Place, made, room_under
from training.data.errors import BadFile
from training.data.imports.files import BadLine, Container, container, digest, lines
from training.data.imports.formats import Format, parsed
from training.data.rules import Rules
from training.data.signals.stream import Left
from training.data.values import Candidate, Kind, Progress, silent

_PROBLEMS_KEPT = 1000
_SAID_EVERY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a file holds, when all of it can be used. Lines are counted as far as they hold something."""

    kind: Kind
    rows: int
    problems: tuple[tuple[int, str], ...] = ()
    bad: int = 0


def check(
    path: Path, *, kind: Kind | None = None, as_: Container | None = None, format_: Format | None = None
) -> Checked:
    """Read all of a file and keep nothing: what it is for, and what is wrong with it. Raises BadFile for a file that
    cannot be read as what it is."""
    walk = Walk(path, kind, as_, format_)
    rows = sum(1 for _ in walk)
    if walk.kind is None:
        raise BadFile(path.name, walk.problems or [(0, "it is empty")], found=max(walk.bad, 1))
    return Checked(kind=walk.kind, rows=rows, problems=tuple(walk.problems), bad=walk.bad)


def import_file(
    path: Path,
    rules: Rules,
    place: Place,
    *,
    as_: Container | None = None,
    format_: Format | None = None,
    skip_bad: bool = False,
) -> Built:
    """A dataset from a file. Raises BadFile that names all bad lines, unless they are to be skipped; NothingLeft."""
    walk = Walk(path, rules.kind, as_, format_, place.progress)
    left = Left()
    with room_under(place.root) as folder:

        def candidates() -> Iterator[Candidate]:
            yield from walk
            left.seen_records = walk.seen
            if walk.bad and not skip_bad:
                raise BadFile(path.name, walk.problems, found=walk.bad)
            if not walk.seen:
                raise BadFile(path.name, [(0, "it is empty")])

        return made(candidates(), rules, place, folder, left, origin=f"{walk.as_} {digest(path)}")


class Walk:
    """Iterate once. `kind` is that of the first good row where none was asked for; others must be of it too."""

    def __init__(
        self,
        path: Path,
        kind: Kind | None,
        as_: Container | None = None,
        format_: Format | None = None,
        progress: Progress = silent,
    ) -> None:
        self.kind = kind
        self.as_: Container = as_ or container(path)
        self.problems: list[tuple[int, str]] = []
        self.bad = self.seen = 0
        self._path = path
        self._format = format_
        self._progress = progress

    def __iter__(self) -> Iterator[Candidate]:
        for number, fields in lines(self._path, self.as_):
            self.seen += 1
            if self.seen % _SAID_EVERY == 0:
                self._progress("lines", self.seen, None)
            try:
                if isinstance(fields, BadLine):
                    raise fields
                found = parsed(fields, self.kind, self._format)
            except BadLine as problem:
                self.bad += 1
                if len(self.problems) < _PROBLEMS_KEPT:
                    self.problems.append((number, str(problem)))
                continue
            self.kind = found.kind
            yield replace(found, inferences=())
