"""A new dataset out of an old one and what a teacher says to its training rows. Memory holds one batch.

Evaluation is copied as it is. A teacher's row is marked by its origin, weighs less than the row that it was made from,
and there are never more of them than the share that was asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from monitoring.records.codes import code
from training.data import summary
from training.data.build import Built, Place, room_under
from training.data.choice.caps import class_weights
from training.data.choice.similar import normal
from training.data.errors import BadRules
from training.data.manifest import REPORTS, Manifest, Part
from training.data.masks import cleaned
from training.data.parquet import Writer, load, put, rows
from training.data.reasons import Reason, Tally
from training.data.report import Report
from training.data.rows import row as as_row
from training.data.teacher import verify
from training.data.teacher.ask import Chat, Teacher
from training.data.template import Encoded
from training.data.values import PAIRED, SPLITS, Candidate, Message, Split

_BATCH = 32
_OF_PARENT = ("at", "owner", "route", "policy", "adapter", "arm", "experiment", "inferences", "words")
_ANSWERED = frozenset({"sft", "kto", "rl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What a teacher is asked for. `share_max` is of all training rows; `weight` multiplies that of the parent row."""

    wordings: int = 1  # of a row's question
    answers: bool = False  # sft: the wanted answer in other words; kto: for disliked ones; rl: where none is known
    share_max: float = 0.2
    weight: float = 0.5
    similar: float = 0.8  # to a question of evaluation; nearer ones leave
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One thing that was asked for: what the row would be, up to the words that the teacher gives."""

    parent: Mapping[str, Any]
    like: Candidate
    kind: str  # wording or answer
    original: str
    chat: Chat
    free: bool  # an answer of the teacher's own, with no original to keep to


@dataclass(slots=True)
class _Found:
    tally: Tally = field(default_factory=Tally)
    asked: int = 0
    rows: int = 0
    taken: set[int] = field(default_factory=set)
    examples: list[Mapping[str, Any]] = field(default_factory=list)


def teach(folder: Path, teacher: Teacher, wanted: Teaching, place: Place) -> Built:
    """The dataset in `folder` with a teacher's rows. Raises BadRules, DatasetDamaged, TeacherAway, CannotWrite."""
    manifest = load(folder, verify=True)
    _check(manifest, wanted, place)
    held = verify.Heldout(similar=wanted.similar)
    for row in rows(folder, "evaluation"):
        held.add(_question(row))
    whole = manifest.parts["train"].rows
    most = int(whole * wanted.share_max / (1 - wanted.share_max))
    found = _Found()
    with room_under(place.root) as room:
        out = room / "dataset"
        out.mkdir()
        writers = {split: Writer(out / f"{split}.parquet", manifest.kind) for split in SPLITS}
        long: dict[Split, array[int]] = {split: array("I") for split in SPLITS}
        up_down = [0.0, 0.0, 0, 0]

        def write(split: Split, row: dict[str, Any]) -> None:
            tokens = _tokens(row)
            writers[split].add(row, tokens)
            long[split].append(tokens)
            if split == "train" and "label" in row:
                up_down[bool(row["label"])] += row["weight"]
                up_down[2 + bool(row["label"])] += 1

        for split in SPLITS:
            for row in rows(folder, split):
                write(split, row)
        for made in _taught(folder, manifest, teacher, wanted, place, held, most, found):
            write("train", made)
        parts: dict[str, Part] = {split: writer.close() for split, writer in writers.items()}
        down, up, downs, ups = up_down
        good, bad = class_weights(up, down)
        classes = {"up": ups, "down": downs, "desirable_weight": good, "undesirable_weight": bad}
        grown = replace(
            manifest,
            origin=f"{teacher.model} taught {manifest.digest}",
            parts=parts,
            seen={**manifest.seen, "teacher_asked": found.asked, "teacher_rows": found.rows},
            left=_added(manifest.left, found.tally),
            classes=classes if manifest.kind == "kto" else manifest.classes,
        )
        report = Report(
            digest=grown.digest,
            manifest=grown,
            lengths={split: summary.spread(np.array(long[split])) for split in SPLITS},
            clusters=(),
            routes={},
            examples=found.examples,
            left={why.value: tuple(ids) for why, ids in found.tally.examples.items() if ids},
        )
        texts = {REPORTS[False]: report.text().encode(), REPORTS[True]: orjson.dumps(report.document())}
        kept = put(out, place.root, grown, texts)
    return Built(folder=kept, manifest=grown, report=report, index_bytes=0)


def _check(manifest: Manifest, wanted: Teaching, place: Place) -> None:
    problems = []
    if manifest.kind == "text":
        problems.append("kind: texts have no question to put in other words")
    if wanted.answers and manifest.kind not in _ANSWERED:
        problems.append(f"answers: go with {', '.join(sorted(_ANSWERED))}; found {manifest.kind}, which has both")
    if manifest.template != place.template.digest:
        problems.append("template: the dataset was made for another chat template than this base's; build it again")
    if not 0 < wanted.share_max < 1 or wanted.wordings < 0 or not 0 < wanted.weight <= 1:
        problems.append("share_max and weight are between 0 and 1, wordings at least 0")
    if not wanted.wordings and not wanted.answers:
        problems.append("wordings: 0, and no answers: nothing is asked for")
    if problems:
        raise BadRules(problems)


def _taught(
    folder: Path,
    manifest: Manifest,
    teacher: Teacher,
    wanted: Teaching,
    place: Place,
    held: verify.Heldout,
    most: int,
    found: _Found,
) -> Iterator[dict[str, Any]]:
    """New rows, a batch of parents at a time. Parents are picked evenly, and only as many as the cap has room for."""
    each = wanted.wordings + wanted.answers
    picked = min(1.0, most / max(1, each * manifest.parts["train"].rows))
    bound = int(picked * (1 << 32))
    parents = (
        row
        for number, row in enumerate(rows(folder, "train"))
        if code("teacher", str(wanted.seed), str(number)) & 0xFFFF_FFFF < bound
    )
    while some := list(islice(parents, _BATCH)):
        asked = [one for row in some for one in _asked(row, manifest, wanted)]
        found.asked += len(asked)
        place.progress("teacher", found.asked, None)
        for row in _rows(asked, teacher, wanted, place, held, found):
            if found.rows >= most:
                found.tally.add(Reason.TEACHER_CAP)
                continue
            found.rows += 1
            if len(found.examples) < summary.EXAMPLES_SHOWN:
                found.examples.append(summary.example(row))
            yield row


def _asked(row: Mapping[str, Any], manifest: Manifest, wanted: Teaching) -> Iterator[_Asked]:
    like = _candidate(row, manifest)
    for number in range(wanted.wordings):
        again = f" (This is request {number + 1}; choose other words than before.)" if number else ""
        chat = verify.reword(like.asked, what="message")
        chat[0]["content"] += again
        yield _Asked(parent=row, like=like, kind="wording", original=like.asked, chat=chat, free=False)
    if not wanted.answers:
        return
    if manifest.kind == "sft":
        chat = verify.reword(like.answer, what="answer")
        yield _Asked(parent=row, like=like, kind="answer", original=like.answer, chat=chat, free=False)
    elif like.label is False or (manifest.kind == "rl" and not like.answer):
        chat = [{"role": each.role, "content": each.content} for each in like.prompt]
        like = replace(like, label=True if manifest.kind == "kto" else None)
        yield _Asked(parent=row, like=like, kind="answer", original=like.answer, chat=chat, free=True)


def _rows(
    asked: list[_Asked], teacher: Teacher, wanted: Teaching, place: Place, held: verify.Heldout, found: _Found
) -> Iterator[dict[str, Any]]:
    """What of a batch passes: the cheap checks, the teacher's second look, and every check that other rows pass."""
    said = teacher.said([one.chat for one in asked])
    passed: list[tuple[_Asked, str]] = []
    for one, text in zip(asked, said, strict=True):
        why = _refused(one, text, held, found)
        if why is not None:
            found.tally.add(why, _id(one.parent))
        else:
            passed.append((one, text))
    doubts = [
        verify.right(one.like.prompt, text) if one.free else verify.same(one.original, text) for one, text in passed
    ]
    for (one, text), answer in zip(passed, teacher.said(doubts) if doubts else (), strict=True):
        if not verify.agreed(answer):
            found.tally.add(Reason.DOUBTED, _id(one.parent))
            continue
        made = _made(one, text, wanted, place)
        if isinstance(made, Reason):
            found.tally.add(made, _id(one.parent))
        else:
            yield made


def _refused(one: _Asked, text: str, held: verify.Heldout, found: _Found) -> Reason | None:
    why = None if one.free else verify.wording(text, one.original)
    if one.free and not text.strip():
        return Reason.EMPTY
    if one.free and normal(text) == normal(one.original):
        return Reason.NO_CHANGE
    if why is None and one.kind == "wording" and held.near(text):
        return Reason.LEAKED
    name = code(one.kind, normal(one.like.asked), normal(text))
    if why is None and name in found.taken:
        return Reason.NEAR_DUPLICATE
    found.taken.add(name)
    return why


def _made(one: _Asked, text: str, wanted: Teaching, place: Place) -> dict[str, Any] | Reason:
    """The row, with the lineage of its parent. An answer of the teacher's is no policy's."""
    like = one.like
    if one.kind == "wording":
        *before, last = like.prompt
        like = replace(like, prompt=(*before, replace(last, content=text)), origin="teacher:wording")
    else:
        like = replace(like, answer=text, origin="teacher:answer")
    clean = cleaned(like, "drop")
    if isinstance(clean, Reason):
        return clean
    if clean.label is not False and clean.answer and place.safety.flags(clean.asked, clean.answer):
        return Reason.UNSAFE
    encoded = place.template.encode([clean])[0]
    if not isinstance(encoded, Encoded):
        return encoded
    weight = round(float(one.parent["weight"]) * wanted.weight, 6)
    row = as_row(clean, encoded, weight) | {name: one.parent[name] for name in _OF_PARENT}
    return row if one.kind == "wording" else row | {"policy": "", "adapter": ""}


def _candidate(row: Mapping[str, Any], manifest: Manifest) -> Candidate:
    answers = [row.get(name) for name in (("chosen", "rejected") if manifest.kind in PAIRED else ("completion",))]
    texts = [each[0]["content"] if each else "" for each in answers]
    return Candidate(
        kind=manifest.kind,
        prompt=tuple(Message(role=each["role"], content=each["content"]) for each in row["prompt"]),
        answer=row["reference"] if manifest.kind == "rl" else texts[0],
        rejected=texts[1] if len(texts) > 1 else "",
        label=row.get("label"),
        score=row.get("score"),
        origin="teacher",
    )


def _question(row: Mapping[str, Any]) -> str:
    return next((str(each["content"]) for each in reversed(row.get("prompt") or ()) if each["role"] == "user"), "")


def _id(row: Mapping[str, Any]) -> str:
    return str(row["inferences"][0]) if row.get("inferences") else ""


def _tokens(row: Mapping[str, Any]) -> int:
    """The longest sequence that a trainer will see of this row."""
    if "input_ids" in row:
        return len(row["input_ids"])
    answers = [len(row[name]) for name in ("completion_ids", "chosen_ids", "rejected_ids") if row.get(name)]
    return len(row["prompt_ids"]) + max(answers, default=0)


def _added(left: Mapping[str, int], tally: Tally) -> dict[str, int]:
    both = dict(left)
    for why, count in tally.document().items():
        both[why] = both.get(why, 0) + count
    return dict(sorted(both.items(), key=lambda each: (-each[1], each[0])))
