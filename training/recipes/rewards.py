"""Rewards by name. A recipe names them and brings no code, so that of a stranger can be run. Heavy for `model:`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from training.base.domain import is_polite
from training.recipes.errors import BadRecipe
from training.recipes.rows import Row

_Judge = Callable[..., list[float]]
FORMS: Final = "contains:COLUMN, exact:COLUMN, matches:REGEX, words_max:N, tidewell:polite, model:FOLDER"


def rewards(names: Sequence[str], *, base: Path, rows: Sequence[Row]) -> tuple[list[Any], list[Any]]:
    """(functions or models, tokenizers or None) as TRL takes them. Raises BadRecipe."""
    functions: list[Any] = []
    classes: list[Any] = []
    for at, name in enumerate(names):
        form, _, rest = name.partition(":")
        if form == "model":
            model, tokenizer = judge(Path(rest), base)
            functions.append(model)
            classes.append(tokenizer)
        else:
            functions.append(_rule(form, rest, f"rl.rewards[{at}]", rows))
            classes.append(None)
    return functions, classes


def judge(folder: Path, base: Path) -> tuple[Any, Any]:
    """A reward model that this project trained, as one model. Merged into a freshly loaded base, never a packed one."""
    from peft import PeftModel

    from training.model import load

    if not (folder / "adapter_config.json").is_file():
        raise BadRecipe([f"rl.rewards: {folder} is no folder of a reward model"])
    model, tokenizer = load(base, head="score")
    merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return merged.eval().requires_grad_(False), tokenizer


def _rule(form: str, rest: str, place: str, rows: Sequence[Row]) -> _Judge:
    if form in ("contains", "exact"):
        if not all(rest in row for row in rows):
            raise BadRecipe([f"{place}: not every row has a column {rest!r}"])
        return _against(rest, whole=form == "exact")
    if form == "matches":
        try:
            return _matches(re.compile(rest))
        except re.error as error:
            raise BadRecipe([f"{place}: {rest!r} is no regular expression: {error}"]) from error
    if form == "words_max" and rest.isdigit():
        most = int(rest)
        return _named(f"words_max_{most}", lambda said: float(len(said.split()) <= most))
    if form == "tidewell" and rest == "polite":
        return _named("polite", lambda said: float(is_polite(said)))
    raise BadRecipe([f"{place}: {form}:{rest} is no reward; allowed: {FORMS}"])


def _against(column: str, *, whole: bool) -> _Judge:
    def judged(completions: list[Any], **columns: Any) -> list[float]:
        pairs = zip(completions, columns[column], strict=True)
        return [float(_text(c) == str(w).strip() if whole else str(w) in _text(c)) for c, w in pairs]

    judged.__name__ = f"{'exact' if whole else 'contains'}_{column}"
    return judged


def _matches(pattern: re.Pattern[str]) -> _Judge:
    return _named("matches", lambda said: float(bool(pattern.search(said))))


def _named(name: str, rule: Callable[[str], float]) -> _Judge:
    def judged(completions: list[Any], **_: Any) -> list[float]:
        return [rule(_text(each)) for each in completions]

    judged.__name__ = name
    return judged


def _text(completion: Any) -> str:
    """What was said: TRL hands over messages where prompts are messages, and text where they are text."""
    return str(completion if isinstance(completion, str) else completion[-1]["content"]).strip()
