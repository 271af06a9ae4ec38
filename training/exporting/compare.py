"""How models that should say the same differ: loss on rows, and whether they would say the same next. Heavy.

Every transform of an adapter or a model is scored with this before and after: a merge that destroys a model tells
nobody. Read along given texts, so that nothing depends on chance or on a first word that led elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from training.errors import BadCheckpoint
from training.recipes.errors import BadRows

Row = Mapping[str, Any]
#: Where no rows are given: what each of `against` says itself to the prompts of the probe.
OWN_WORDS: Final = "its own words"
ROWS_MAX, TOKENS_MAX = 200, 1024
_LOGITS_BYTES_MAX = 256 << 20
_TOKENS_AT_ONCE_MAX = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is compared: a model's folder, with an adapter on it or without."""

    name: str
    base: Path
    adapter: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """Over the same tokens: how often both would say the same next, and how far a token's logprobs are apart."""

    same_next: float
    apart: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One subject on the rows of one source. `loss` is nats a token of the answers."""

    source: str
    subject: str
    rows: int
    tokens: int
    loss: float
    near: Mapping[str, Nearness] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Text:
    """Tokens, and the places of those that count."""

    ids: tuple[int, ...]
    counted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """What a model makes of one text, at each place that counts: the token's logprob, and what it would say there."""

    logprobs: tuple[float, ...]
    best: tuple[int, ...]


def compare(
    subjects: Sequence[Subject],
    sources: Mapping[str, Sequence[Row]],
    *,
    against: Sequence[str],
    rows_max: int = ROWS_MAX,
) -> tuple[Score, ...]:
    """Score every subject on every source, and against the subjects named in `against`.

    Without sources, each of `against` is listened to itself. Raises BadRows for rows without an answer, BadCheckpoint.
    """
    texts: dict[str, list[_Text]] = {}
    for name, rows in sources.items():
        texts[name] = _texts(name, rows[:rows_max], subjects[0].base)
    if not sources:
        for model, tokenizer, subject in _open([one for one in subjects if one.name in against]):
            texts[f"{subject.name}: {OWN_WORDS}"] = _own(model, tokenizer)
    read: dict[str, dict[str, list[_Read]]] = {}
    for model, _, subject in _open(subjects):
        read[subject.name] = {name: _reading(model, found) for name, found in texts.items()}
    return tuple(
        _score(name, subject.name, read[subject.name][name], {other: read[other][name] for other in against})
        for name in texts
        for subject in subjects
    )


def spoken(sources: Mapping[str, Sequence[Row]], base: Path, *, rows_max: int = ROWS_MAX) -> tuple[str, ...]:
    """The rows as the model sees them, marks of the template included. Raises BadRows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    texts = [text for name, rows in sources.items() for text in _texts(name, rows[:rows_max], base)]
    return tuple(tokenizer.decode(text.ids) for text in texts)


def documents(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """The scores as JSON has them, with as many digits as mean something."""
    found = [asdict(score) for score in scores]
    for one in found:
        one["loss"] = round(one["loss"], 5)
        one["near"] = {
            name: {part: round(value, 5) for part, value in near.items()} for name, near in one["near"].items()
        }
    return found


def _score(source: str, subject: str, read: Sequence[_Read], others: Mapping[str, Sequence[_Read]]) -> Score:
    logprobs = [value for one in read for value in one.logprobs]
    near = {}
    for name, other in others.items():
        if name == subject:
            continue
        there = [value for one in other for value in one.logprobs]
        agreeing = sum(a == b for x, y in zip(read, other, strict=True) for a, b in zip(x.best, y.best, strict=True))
        apart = math.fsum(abs(a - b) for a, b in zip(logprobs, there, strict=True)) / len(there)
        near[name] = Nearness(same_next=agreeing / len(there), apart=apart)
    loss = -math.fsum(logprobs) / len(logprobs)
    return Score(source=source, subject=subject, rows=len(read), tokens=len(logprobs), loss=loss, near=near)


def _open(subjects: Sequence[Subject]) -> Iterator[tuple[Any, Any, Subject]]:
    """(model, tokenizer, subject): a base is loaded once for all its adapters, and one base at a time."""
    from training.probe import model as models

    loaded: tuple[Path, Any, Any] | None = None
    for subject in sorted(subjects, key=lambda one: str(one.base)):
        if loaded is None or loaded[0] != subject.base:
            loaded = None  # before the next one is read, so that only one is in memory
            loaded = (subject.base, *models.load(subject.base))
        _, model, tokenizer = loaded
        if subject.adapter is None:
            yield model, tokenizer, subject
            continue
        try:
            adapted = models.adapted(model, subject.adapter)
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            raise BadCheckpoint(f"{subject.adapter} cannot be put on {subject.base.name}: {error}") from error
        try:
            yield adapted, tokenizer, subject
        finally:
            adapted.unload()


def _own(model: Any, tokenizer: Any) -> list[_Text]:
    """What a model says itself to the prompts of the probe."""
    from training.probe import model as models
    from training.probe import prompts

    found = []
    for opening in prompts.openings(tokenizer):
        ids = models.answered(model, opening)
        if len(ids) > len(opening):
            found.append(_Text(tuple(ids), tuple(range(len(opening), len(ids)))))
    if not found:
        raise BadRows("the probe's prompts", ["the model says nothing to any of them; give rows to compare on"])
    return found


def _texts(name: str, rows: Sequence[Row], base: Path) -> list[_Text]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    cut = (_text(tokenizer, row) for row in rows)
    found = [_Text(one.ids[:TOKENS_MAX], tuple(at for at in one.counted if at < TOKENS_MAX)) for one in cut if one]
    found = [one for one in found if one.counted]
    if not found:
        raise BadRows(name, [f"none of its first {len(rows)} rows holds an answer that can be scored"])
    return found


def _text(tokenizer: Any, row: Row) -> _Text | None:
    """A row as tokens, with those of its answer marked; None for one with no answer, or with one that was disliked."""
    if row.get("label") is False:
        return None
    if "input_ids" in row:
        ids = tuple(int(token) for token in row["input_ids"])
        labels = row.get("labels")
        mask = row.get("completion_mask") or (labels and [token != -100 for token in labels]) or [1] * len(ids)
        return _Text(ids, tuple(at for at, counts in enumerate(mask) if counts and at))
    if "text" in row:
        ids = tuple(tokenizer(row["text"])["input_ids"])
        return _Text(ids, tuple(range(1, len(ids))))
    if "messages" in row:
        turns = list(row["messages"])
        last = max((at for at, turn in enumerate(turns) if turn.get("role") == "assistant"), default=0)
        return _chat(tokenizer, turns[:last], turns[last : last + 1]) if last else None
    answer = row.get("completion", row.get("chosen"))
    prompt = row.get("prompt")
    if answer is None or prompt is None:
        return None
    if isinstance(prompt, str) and isinstance(answer, str):
        before = tokenizer(prompt)["input_ids"]
        whole = [*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id]
        return _answer(before, whole)
    return _chat(tokenizer, _turns(prompt, "user"), _turns(answer, "assistant"))


def _chat(tokenizer: Any, asked: Sequence[Any], answer: Sequence[Any]) -> _Text:
    before = tokenizer.apply_chat_template(list(asked), tokenize=True, return_dict=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*asked, *answer], tokenize=True, return_dict=False)
    return _answer(before, whole)


def _answer(before: Sequence[int], whole: Sequence[int]) -> _Text:
    """From the first token on that is not the prompt's: where both meet, a tokenizer may join them otherwise."""
    shared = 0
    while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
        shared += 1
    return _Text(tuple(int(token) for token in whole), tuple(range(max(1, shared), len(whole))))


def _turns(said: Any, role: str) -> list[Any]:
    return [{"role": role, "content": said}] if isinstance(said, str) else list(said)


def _reading(model: Any, texts: Sequence[_Text]) -> list[_Read]:
    import torch

    vocabulary = model.config.get_text_config().vocab_size
    room = max(1, min(_TOKENS_AT_ONCE_MAX, _LOGITS_BYTES_MAX // (4 * vocabulary)))
    found: dict[int, _Read] = {}
    for group in _groups([len(text.ids) for text in texts], room):
        width = max(len(texts[at].ids) for at in group)
        # What stands to the right of a token cannot reach it, so the filling needs no mask.
        ids = torch.tensor([[*texts[at].ids, *[texts[at].ids[-1]] * (width - len(texts[at].ids))] for at in group])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            said = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)
            best = logits.argmax(-1)
        for row, at in enumerate(group):
            places = torch.tensor(texts[at].counted) - 1
            found[at] = _Read(tuple(said[row, places].tolist()), tuple(best[row, places].tolist()))
    return [found[at] for at in range(len(texts))]


def _groups(lengths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Texts of like length together, as many as there is room for."""
    group: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[at] > room:
            yield group
            group = []
        group.append(at)
    if group:
        yield group
