"""One build, from candidates to a dataset with a name. Memory holds one page and the index; rows wait on disk.

Candidates are cleaned, checked and tokenised as they come, and their columns go to the index. Then all decisions are
made on the index, and what stays is copied from the waiting file to the splits.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from training.data import summary
from training.data.choice.caps import Fate, choose, factors, reason, stays
from training.data.choice.index import Index
from training.data.choice.split import divide, leaks
from training.data.errors import CannotWrite
from training.data.manifest import REPORTS, Manifest, Part
from training.data.masks import cleaned
from training.data.parquet import Writer, put
from training.data.reasons import Reason, Tally
from training.data.report import Report
from training.data.rows import row
from training.data.rules import Rules
from training.data.safety import PlainRules, Safety
from training.data.signals.stream import Barred, Left, Source, Window, candidates, evaluated
from training.data.template import Encoded
from training.data.values import SPLITS, Candidate, Progress, silent

_BATCH = 256
_SAID_EVERY = 4096


class Encoder(Protocol):
    """`template.Template` is one."""

    @property
    def digest(self) -> str: ...

    def encode(self, candidates: Sequence[Candidate]) -> list[Encoded | Reason]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a dataset is made for and where it goes. `generations` says of policies how many came after each."""

    root: Path
    template: Encoder
    base: str = ""
    safety: Safety = field(default_factory=PlainRules)
    generations: Mapping[str, int] = field(default_factory=dict)
    progress: Progress = silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """`index_bytes` is what the decisions took in memory."""

    folder: Path
    manifest: Manifest
    report: Report
    index_bytes: int

    @property
    def digest(self) -> str:
        return self.manifest.digest


def build(
    source: Source,
    rules: Rules,
    place: Place,
    *,
    window: Window | None = None,
    opted_out: Iterable[str] = (),
    experiments: Sequence[str] = (),
) -> Built:
    """A dataset from records and feedback. `experiments` are the ids of those that run.

    Raises NothingLeft, CannotWrite, and what reading `source` does.
    """
    window, left = window or Window(), Left()
    barred = Barred(opted_out, evaluated(source, experiments), experiments)
    with room_under(place.root) as folder:
        found = candidates(source, rules, window, barred, folder, left, place.progress)
        return made(found, rules, place, folder, left, origin="records", window=window)


@contextmanager
def room_under(root: Path) -> Iterator[Path]:
    """A folder for what waits, on the disk that datasets go to; gone afterwards. Raises CannotWrite."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=root) as name:
            yield Path(name)
    except (OSError, sqlite3.Error) as problem:
        raise CannotWrite(root, problem) from problem


def made(
    found: Iterable[Candidate],
    rules: Rules,
    place: Place,
    folder: Path,
    left: Left,
    *,
    origin: str,
    window: Window | None = None,
) -> Built:
    """A dataset from candidates, in a folder for what waits. Raises NothingLeft."""
    index, waiting = Index(), folder / "waiting.jsonl"
    _wait(found, rules, place, index, waiting, left.records)
    place.progress("choosing", 0, index.size)
    fate, duplicates = choose(index, rules)
    held = divide(index, fate, duplicates, rules)
    for number, count in zip(*np.unique(fate[fate > 0], return_counts=True), strict=True):
        left.records.add(reason(int(number)), count=int(count))
    weights = index.column("weight") * factors(index, fate, rules)
    out = folder / "dataset"
    out.mkdir()
    written = _write(waiting, out, rules, fate, held, weights, index, place.progress)
    manifest = Manifest(
        kind=rules.kind,
        origin=origin,
        rules=rules.document(),
        template=place.template.digest,
        base=place.base,
        since=window.since if window else None,
        until=window.until if window else None,
        seen={"records": left.seen_records, "words": left.seen_words, **left.by_kind, "candidates": index.size},
        left=left.records.document(),
        words_left=left.words.document(),
        parts=written.parts,
        classes=summary.classes(index, stays(fate) & ~held, weights) if rules.kind == "kto" else {},
        policies=summary.counted(index.column("policy"), index.policies, fate),
        arms=dict(sorted(written.arms.items())),
        leaks=summary.shared(leaks(index, fate, duplicates, held)),
    )
    manifest = replace(manifest, warnings=tuple(summary.warnings(manifest, rules, place.generations)))
    report = Report(
        digest=manifest.digest,
        manifest=manifest,
        lengths=summary.lengths(index.column("tokens"), fate, held),
        clusters=summary.clusters(index, fate, waiting),
        routes=summary.counted(index.column("route"), index.routes, fate),
        examples=written.examples,
        left={why.value: tuple(ids) for why, ids in {**left.words.examples, **left.records.examples}.items() if ids},
    )
    summary.enough(manifest, report)
    reports = {REPORTS[False]: report.text().encode(), REPORTS[True]: orjson.dumps(report.document())}
    kept = put(out, place.root, manifest, reports)
    return Built(folder=kept, manifest=manifest, report=report, index_bytes=index.bytes)


def _wait(found: Iterable[Candidate], rules: Rules, place: Place, index: Index, waiting: Path, left: Tally) -> None:
    """Clean, check and tokenise; what passes waits in the file, and its columns in the index."""
    offset = 0
    walk = iter(found)
    with waiting.open("wb") as file:
        while some := list(islice(walk, _BATCH)):
            fit = list(_fit(some, rules, place.safety, left))
            for candidate, encoded in zip(fit, place.template.encode(fit) if fit else (), strict=True):
                why = encoded if isinstance(encoded, Reason) else None
                if not isinstance(encoded, Reason) and encoded.tokens > rules.tokens_max:
                    why = Reason.TOO_LONG
                if why is not None or isinstance(encoded, Reason):
                    left.add(why or Reason.TEMPLATE, _name(candidate))
                    continue
                line = orjson.dumps(row(candidate, encoded, 0.0), option=orjson.OPT_APPEND_NEWLINE)
                index.add(candidate, offset=offset, tokens=encoded.tokens)
                offset += file.write(line)
            place.progress("rows", index.size, None)


def _fit(some: Iterable[Candidate], rules: Rules, safety: Safety, left: Tally) -> Iterator[Candidate]:
    for candidate in some:
        clean = cleaned(candidate, rules.personal)
        if isinstance(clean, Reason):
            left.add(clean, _name(candidate))
        elif clean.label is not False and clean.answer and safety.flags(clean.asked, clean.answer):
            left.add(Reason.UNSAFE, _name(candidate))
        else:
            yield clean


def _name(candidate: Candidate) -> str:
    return candidate.inferences[0] if candidate.inferences else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    parts: Mapping[str, Part]
    arms: Mapping[str, int]
    examples: Sequence[Mapping[str, Any]]


def _write(
    waiting: Path,
    out: Path,
    rules: Rules,
    fate: Fate,
    held: NDArray[np.bool_],
    weights: NDArray[np.float32],
    index: Index,
    progress: Progress,
) -> _Written:
    """Copy what stays to its split, in the order it came."""
    writers = {split: Writer(out / f"{split}.parquet", rules.kind) for split in SPLITS}
    arms: dict[str, int] = {}
    examples: list[Mapping[str, Any]] = []
    keep, tokens = stays(fate), index.column("tokens")
    with waiting.open("rb") as file:
        for number, line in enumerate(file):
            if number % _SAID_EVERY == 0:
                progress("writing", number, index.size)
            if not keep[number]:
                continue
            document = orjson.loads(line)
            document["weight"] = round(float(weights[number]), 6)
            writers["evaluation" if held[number] else "train"].add(document, int(tokens[number]))
            if document["experiment"]:
                arm = f"{document['experiment']}:{document['arm']}"
                arms[arm] = arms.get(arm, 0) + 1
            if len(examples) < summary.EXAMPLES_SHOWN:
                examples.append(summary.example(document))
    parts: dict[str, Part] = {split: writer.close() for split, writer in writers.items()}
    return _Written(parts=parts, arms=arms, examples=examples)
