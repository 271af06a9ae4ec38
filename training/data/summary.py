"""The numbers of a build, from its columns, and what they should make people wary of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from training.data.choice.caps import Fate, class_weights, stays
from training.data.choice.index import DOWN, UP, Index
from training.data.choice.split import Leaks
from training.data.errors import NothingLeft
from training.data.manifest import Manifest
from training.data.reasons import Reason
from training.data.report import Cluster, Lengths, Report
from training.data.rules import Rules
from training.data.values import PAIRED

EXAMPLES_SHOWN = 2
_CLUSTERS_SHOWN = 8
_EVALUATION_MIN = 50
_IMBALANCE_MAX = 10.0
_STALE_SHARE = 0.2
_SHOWN_FIELDS = ("prompt", "completion", "chosen", "rejected", "label", "reference", "text", "weight", "origin")


def classes(index: Index, train: NDArray[np.bool_], weights: NDArray[np.float32]) -> dict[str, float]:
    """Rows of both labels in training, and the weights that balance them."""
    label = index.column("label")
    up, down = train & (label == UP), train & (label == DOWN)
    desirable, undesirable = class_weights(float(weights[up].sum()), float(weights[down].sum()))
    return {
        "up": int(up.sum()),
        "down": int(down.sum()),
        "desirable_weight": desirable,
        "undesirable_weight": undesirable,
    }


def counted(column: NDArray[Any], names: Mapping[str, int], fate: Fate) -> dict[str, int]:
    """Rows that stay by a numbered name, the most first."""
    counts = np.bincount(column[stays(fate)], minlength=max(names.values(), default=0) + 1).tolist()
    found = {name: counts[number] for name, number in names.items() if counts[number]}
    return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))


def shared(found: Leaks) -> dict[str, int]:
    return {"users": found.users, "questions": found.questions, "near duplicates": found.near_duplicates}


def lengths(tokens: NDArray[Any], fate: Fate, held: NDArray[np.bool_]) -> dict[str, Lengths]:
    """Of both splits."""
    return {
        "train": spread(tokens[stays(fate) & ~held]),
        "evaluation": spread(tokens[stays(fate) & held]),
    }


def clusters(index: Index, fate: Fate, waiting: Path) -> tuple[Cluster, ...]:
    """The largest clusters of rows that stay, each with a question of it."""
    names, first, count = np.unique(index.column("cluster")[stays(fate)], return_index=True, return_counts=True)
    offsets = index.column("offset")[stays(fate)]
    largest = np.argsort(-count, kind="stable")[:_CLUSTERS_SHOWN]
    found = []
    with waiting.open("rb") as file:
        for place in largest.tolist():
            file.seek(int(offsets[first[place]]))
            said = orjson.loads(file.readline()).get("prompt", ())
            asked = next((each["content"] for each in reversed(said) if each["role"] == "user"), "")
            found.append(Cluster(rows=int(count[place]), question=asked))
    return tuple(each for each in found if each.question) if names.size else ()


def example(document: Mapping[str, Any]) -> dict[str, Any]:
    """A row as people read it."""
    return {name: _plain(document[name]) for name in _SHOWN_FIELDS if document.get(name) not in (None, "")}


def warnings(made: Manifest, rules: Rules, generations: Mapping[str, int]) -> Iterator[str]:
    """What somebody should look at before training on this."""
    train, evaluation = made.parts["train"].rows, made.parts["evaluation"].rows
    judged = sum(made.policies.values())
    if made.kind == "kto" or made.kind in PAIRED:
        stale = sum(count for name, count in made.policies.items() if generations.get(name, 0) > rules.generations_max)
        if judged and stale / judged > _STALE_SHARE:
            yield (
                f"{stale} of {judged} judged answers were given by versions more than {rules.generations_max} "
                "generations old: what they say of the present one fades. Take a later window."
            )
    unknown = sum(count for name, count in made.policies.items() if generations and name not in generations)
    if unknown:
        yield f"{unknown} answers were given by versions that the registry does not know."
    if rules.evaluation and evaluation < _EVALUATION_MIN:
        yield f"{evaluation} rows for evaluation tell little; below {_EVALUATION_MIN} nothing small can be seen."
    leaked = made.left.get(Reason.LEAKED, 0)
    if leaked > evaluation:
        yield f'{leaked} held-out rows had questions that training has too. split = "prompt" keeps more of them.'
    up, down = made.classes.get("up", 0), made.classes.get("down", 0)
    if up and down and max(up, down) > _IMBALANCE_MAX * min(up, down):
        yield f"{up:g} good and {down:g} bad rows: the weights balance them, but the few decide much."
    for name in ("questions", "near duplicates"):
        if made.leaks.get(name):
            yield f"{made.leaks[name]} {name} stand in training and in evaluation."
    if train and rules.split in ("user", "user_time") and made.leaks.get("users"):
        yield f"{made.leaks['users']} users stand in training and in evaluation."


def enough(made: Manifest, report: Report) -> None:
    """Raises NothingLeft where nothing can be trained on this."""
    if not made.parts["train"].rows:
        raise NothingLeft("No row is left to train on.", report.text())
    if made.kind == "kto" and not (made.classes["up"] and made.classes["down"]):
        only = "good" if made.classes["up"] else "bad"
        raise NothingLeft(
            f"All rows are {only} answers. KTO learns from good and bad ones; collect both, or build another kind.",
            report.text(),
        )


def spread(tokens: NDArray[Any]) -> Lengths:
    """Lengths of rows, as a report has them."""
    if not tokens.size:
        return Lengths(median=0, p90=0, p99=0, most=0)
    median, p90, p99 = (int(each) for each in np.quantile(tokens, (0.5, 0.9, 0.99)))
    return Lengths(median=median, p90=p90, p99=p99, most=int(tokens.max()))


def _plain(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " | ".join(f"{each['role']}: {each['content']}" for each in value)
    return value
