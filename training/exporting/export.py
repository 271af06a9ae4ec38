"""A version leaves as a model of its own: merged, packed if asked, and scored before and after. Heavy.

What comes out is a base: `graftline up --base FOLDER` serves it. Its digest is its own, and its card.json says what it
was made of and what that cost.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from training.base.digest import CARD, folder_digest
from training.errors import CannotExport, OutputExists
from training.exporting import whole
from training.exporting.compare import Row, Score, Subject, compare, documents
from training.exporting.packing import Compressor, Packed, pack
from training.quantize import Scheme

BEFORE, MERGED = "base + adapter", "merged"
#: A merge only moves roundings: below this share of next tokens in common it destroyed something.
SAME_NEXT_MIN: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What came out, and how it was scored."""

    folder: Path
    digest: str
    packed: Packed | None
    scores: tuple[Score, ...]


def export_model(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    about: Mapping[str, Any],
    sources: Mapping[str, Sequence[Row]],
    onto: Path | None = None,
    scheme: Scheme | None = None,
    group: int = 64,
    by: Compressor | None = None,
    tell: Callable[[str], None] | None = None,
) -> Exported:
    """Merge `adapter` into a freshly loaded bf16 `base`; the model, packed as `scheme`, is the new folder `out`.

    `onto` is the checkpoint that a packed base was made from; left out, the base is unpacked. `sources` are rows to
    score on. Raises CannotExport, also where the merged model says something else than base and adapter did.
    """
    with _building(out) as building:
        merged = building / MERGED
        whole.merged(onto or base, adapter, merged)
        subjects = [Subject(name="base", base=base), Subject(name=BEFORE, base=base, adapter=adapter)]
        if onto is not None:
            subjects.append(Subject(name=f"{onto.name} + adapter", base=onto, adapter=adapter))
        subjects.append(Subject(name=MERGED, base=merged))
        done, last = None, merged
        if scheme is not None:
            last = building / scheme
            done = pack(merged, last, scheme=scheme, group=group, by=by, tell=tell)
            subjects.append(Subject(name=f"{MERGED}, {scheme}", base=last))
        # A merge is held against what it was merged onto: where that is another checkpoint, both differ already.
        truth = subjects[2].name if onto is not None else BEFORE
        scores = compare(subjects, sources, against=list(dict.fromkeys([BEFORE, truth])))
        unharmed(scores, truth)
        made = {**about, "onto": folder_digest(onto) if onto is not None else None}
        digest = _carded(last, made, done, scores)
        _place(last, out)
    return Exported(folder=out, digest=digest, packed=done, scores=scores)


def new_base(
    model: Any,
    out: Path,
    *,
    like: Path,
    about: Mapping[str, Any],
    sources: Mapping[str, Sequence[Row]],
    scheme: Scheme,
    group: int,
) -> Exported:
    """Whole weights that were trained leave as a packed base of their own, in the new folder `out`.

    `like` is the base they were trained from. Raises CannotExport, CannotQuantize, OutputExists.
    """
    with _building(out) as building:
        trained = building / "trained"
        whole.write(model, trained, like=like)
        done = pack(trained, building / scheme, scheme=scheme, group=group)
        subjects = [
            Subject(name="base", base=like),
            Subject(name="trained", base=trained),
            Subject(name=f"trained, {scheme}", base=building / scheme),
        ]
        scores = compare(subjects, sources, against=["trained"])
        digest = _carded(building / scheme, about, done, scores)
        _place(building / scheme, out)
    return Exported(folder=out, digest=digest, packed=done, scores=scores)


def unharmed(scores: Sequence[Score], truth: str) -> None:
    """Raises CannotExport where the merged model does not say what `truth` says."""
    for score in scores:
        near = score.near.get(truth)
        if score.subject == MERGED and near is not None and near.same_next < SAME_NEXT_MIN:
            raise CannotExport(
                f"The merged model would say the same as {truth} for only {near.same_next:.0%} of {score.tokens} "
                f"tokens ({score.source}): the merge destroyed something, and nothing was written."
            )


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A folder beside `out`, gone at the end whatever happens: `out` appears whole or not at all."""
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _carded(folder: Path, about: Mapping[str, Any], done: Packed | None, scores: Sequence[Score]) -> str:
    digest = done.digest if done is not None else folder_digest(folder)
    card = {"digest": digest, "made_of": dict(about), "packed": asdict(done) if done else None}
    (folder / CARD).write_text(json.dumps({**card, "scores": documents(scores)}, indent=1) + "\n")
    return digest


def _place(folder: Path, out: Path) -> None:
    try:
        folder.chmod(0o755)
        folder.rename(out)
    except OSError as error:
        raise OutputExists(f"{out} appeared while it was being built, or cannot be written: {error}") from error
