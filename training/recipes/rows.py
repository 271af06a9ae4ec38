"""Rows to learn from, in TRL's own columns: read, held against what a method takes, counted, mixed. Light.

A row stays the mapping that its file holds, since TRL takes it as it is; nothing else in this project looks into it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from training.recipes.auto import Kinds
from training.recipes.errors import BadRows
from training.recipes.recipe import ONLINE, Method
from training.recipes.tidewell import SOURCES

Row = Mapping[str, Any]
_PAIRS: Final = frozenset({"prompt_ids", "chosen_ids", "rejected_ids", "chosen_mask", "rejected_mask"})
#: What a method takes: one of these sets of columns. More columns may stand beside them. Those with tokens come first:
#: the dataset compiler wrote them as the server will be asked, and masked the placeholders.
TAKEN: Final[dict[Method, tuple[frozenset[str], ...]]] = {
    "sft": (
        frozenset({"input_ids", "completion_mask"}),
        frozenset({"input_ids", "labels"}),
        frozenset({"prompt", "completion"}),
        frozenset({"messages"}),
    ),
    "pretrain": (frozenset({"input_ids", "completion_mask"}), frozenset({"text"})),
    "kto": (
        frozenset({"prompt_ids", "completion_ids", "completion_mask", "label"}),
        frozenset({"prompt", "completion", "label"}),
    ),
    "dpo": (_PAIRS, frozenset({"prompt", "chosen", "rejected"})),
    "orpo": (_PAIRS, frozenset({"prompt", "chosen", "rejected"})),
    "reward": (
        frozenset({"prompt_ids", "chosen_ids", "rejected_ids"}),
        frozenset({"prompt", "chosen", "rejected"}),
        frozenset({"chosen", "rejected"}),
    ),
    "grpo": (frozenset({"prompt"}),),
    "rloo": (frozenset({"prompt"}),),
    "ppo": (frozenset({"prompt"}),),
}
_PREFIX = "tidewell:"
#: The column that says how much a row counts: of its rater, its kind of question, its route and its label.
WEIGHT: Final = "weight"


def read(
    source: str, *, rows_max: int | None = None, seed: int = 11, split: Literal["train", "evaluation"] = "train"
) -> list[Row]:
    """The rows of a source; of a dataset's folder, one split. Raises BadRows with the number of every bad line."""
    if source.startswith(_PREFIX):
        name = source.removeprefix(_PREFIX)
        if name not in SOURCES:
            raise BadRows(source, [f"no feedback is called {name!r}; allowed: {', '.join(sorted(SOURCES))}"])
        return list(SOURCES[name](rows_max or 400, seed))
    path = Path(source)
    file = path / f"{split}.parquet" if path.is_dir() else path
    if not file.is_file():
        raise BadRows(source, [f"there is no such file, and no folder with {split}.parquet"])
    if file.suffix not in (".jsonl", ".parquet"):
        raise BadRows(source, [f"{file.name} ends in {file.suffix!r}; allowed: .jsonl, .parquet"])
    rows = _parquet(file) if file.suffix == ".parquet" else _jsonl(file)
    return rows[:rows_max]


def kinds(rows: Iterable[Row]) -> Kinds:
    """How much there is of each kind of feedback."""
    answers = pairs = liked = disliked = texts = prompts = 0
    for row in rows:
        if "chosen" in row and "rejected" in row:
            pairs += 1
        elif "label" in row:
            liked, disliked = liked + (row["label"] is True), disliked + (row["label"] is False)
        elif "completion" in row or "messages" in row:
            answers += 1
        elif "text" in row:
            texts += 1
        elif "input_ids" in row:
            answers += 1
        elif "prompt" in row:
            prompts += 1
    return Kinds(answers=answers, pairs=pairs, liked=liked, disliked=disliked, texts=texts, prompts=prompts)


def check(source: str, rows: Sequence[Row], method: Method) -> None:
    """Whether the method can learn from the rows. Raises BadRows with every row that it cannot learn from."""
    if not rows:
        raise BadRows(source, ["it is empty"])
    problems = []
    for at, row in enumerate(rows, start=1):
        if not any(columns <= row.keys() for columns in TAKEN[method]):
            wanted = " or ".join("+".join(sorted(columns)) for columns in TAKEN[method])
            problems.append(f"row {at}: has {', '.join(map(str, row))}; {method} takes {wanted}")
        else:
            problems += [f"row {at}: {problem}" for problem in _wrong(row)]
    if method == "kto" and not problems:
        counted = kinds(rows)
        if not (counted.liked and counted.disliked):
            side = "liked" if counted.liked else "disliked"
            problems.append(f"all {len(rows)} rows are {side}; kto learns from the difference and needs both")
    if problems:
        raise BadRows(source, problems)


def mixed(rows: Sequence[Row], replayed: Sequence[Row], *, share: float, seed: int) -> list[Row]:
    """All rows, and so many of the replayed ones that they are `share` of the whole; shuffled by the seed."""
    rng = random.Random(seed)
    wanted = round(len(rows) * share / (1 - share))
    picked = [replayed[at % len(replayed)] for at in range(wanted)] if replayed else []
    together = [*rows, *picked]
    rng.shuffle(together)
    return together


def columns(rows: Sequence[Row], method: Method) -> list[dict[str, Any]]:
    """The rows as a trainer takes them. Online methods keep every column: rewards look at them."""
    if method in ONLINE:
        return [dict(row) for row in rows]
    taken = {*shared(rows, method), WEIGHT}
    return [{name: row[name] for name in row if name in taken} for row in rows]


def weighed(rows: Sequence[Row], method: Method) -> tuple[list[Row], str]:
    """The rows with weights around 1, and what to say of it: no weights, and nothing, where all rows count alike.

    Rows of weight 0 leave. Online methods have no row whose loss could be scaled: there a row's question is asked as
    often as it weighs.
    """
    weights = [_weight(row) for row in rows]
    counting = [one for one in weights if one > 0]
    if not counting or (min(weights) == max(weights)):
        return unweighed(rows), ""
    mean = sum(counting) / len(counting)
    left = [{**row, WEIGHT: round(one / mean, 6)} for row, one in zip(rows, weights, strict=True) if one > 0]
    text = f"rows count {min(counting) / mean:.2f} to {max(counting) / mean:.2f} times as much as their average"
    if len(left) < len(rows):
        text += f"; {len(rows) - len(left)} weigh nothing and were left out"
    if method not in ONLINE:
        return list(left), text
    times, due = [0] * len(left), 0.5
    for at in sorted(
        range(len(left)), key=lambda at: left[at][WEIGHT]
    ):  # what alternates in the rows must not resonate
        due += left[at][WEIGHT]
        times[at] = int(due)
        due -= times[at]
    asked = [row for row, count in zip(left, times, strict=True) for _ in range(count)]
    return unweighed(asked), text + ": questions are asked as often as they weigh"


def unweighed(rows: Sequence[Row]) -> list[Row]:
    """The rows without their weights."""
    return [{name: value for name, value in row.items() if name != WEIGHT} for row in rows]


def shared(rows: Sequence[Row], method: Method) -> frozenset[str]:
    """The columns that are learnt from: the first set that every row has."""
    return next(columns for columns in TAKEN[method] if all(columns <= row.keys() for row in rows))


def _weight(row: Row) -> float:
    value = row.get(WEIGHT, 1.0)
    return float(value) if isinstance(value, int | float) else 1.0


def _wrong(row: Row) -> Iterator[str]:
    """What is wrong inside one row that has its columns."""
    for name, look in _LOOKS.items():
        if name in row:
            yield from (f"{name} {problem}" for problem in look(row[name]))
    if "chosen" in row and row["chosen"] == row.get("rejected"):
        yield "chosen and rejected are the same"


def _prompt(value: object) -> Iterator[str]:
    if isinstance(value, str):
        return
    yield from _turns(value)
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and value[-1].get("role") == "assistant":
        yield "ends with the assistant, so there is nothing to answer"


def _answer(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if not value.strip():
            yield "is empty"
        return
    if not isinstance(value, list) or not value or not isinstance(value[-1], Mapping):
        yield "must be text or a list of messages"
    elif value[0].get("role") != "assistant":
        yield f"begins with role {value[0].get('role')!r}; an answer is the assistant's"
    elif not str(value[-1].get("content") or value[-1].get("tool_calls") or "").strip():
        yield "is empty"


def _conversation(value: object) -> Iterator[str]:
    yield from _turns(value)
    if isinstance(value, list) and not any(isinstance(m, Mapping) and m.get("role") == "assistant" for m in value):
        yield "has no turn of the assistant to learn from"


def _turns(value: object) -> Iterator[str]:
    """Roles in the order that chat templates know."""
    if not isinstance(value, list) or not value or not all(isinstance(m, Mapping) and "role" in m for m in value):
        yield "must be text or a list of messages with a role and content"
        return
    roles = [str(message["role"]) for message in value]
    for at, role in enumerate(roles):
        before = roles[at - 1] if at else ""
        if role not in ("system", "developer", "user", "assistant", "tool"):
            yield f"has role {role!r} at turn {at + 1}; allowed: system, developer, user, assistant, tool"
        elif role in ("system", "developer") and at and before not in ("system", "developer"):
            yield f"has the system's words at turn {at + 1}; they come first"
        elif role == "assistant" and before not in ("user", "tool"):
            yield f"has the assistant at turn {at + 1} with no question before it"
        elif role == "user" and before == "user":
            yield f"has the user twice in a row, at turn {at + 1}"


def _label(value: object) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"is {value!r}; allowed: true, false"


def _counts(value: object) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        yield f"is {value!r}; it must be a number that is not negative"


def _text(value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value.strip():
        yield "is no text, or empty"


_LOOKS: dict[str, Callable[[object], Iterator[str]]] = {
    "prompt": _prompt, "completion": _answer, "chosen": _answer, "rejected": _answer, "messages": _conversation,
    "label": _label, "text": _text, WEIGHT: _counts,
}  # fmt: skip


def _jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    problems = []
    with path.open("rb") as lines:
        for at, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                problems.append(f"line {at}: is not JSON: {error}")
                continue
            if isinstance(row, dict):
                rows.append(row)
            else:
                problems.append(f"line {at}: is no JSON object")
    if problems:
        raise BadRows(str(path), problems)
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadRows(str(path), [f"cannot be read as Parquet: {error}"]) from error
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
