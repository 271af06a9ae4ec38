"""What a dataset is built by. Strict: unknown names are refused, and all problems are told together."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from training.data.errors import BadRules
from training.data.values import Kind

_Share: TypeAlias = Annotated[float, Field(ge=0, le=0.5)]
_Weight: TypeAlias = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
_Cap: TypeAlias = Annotated[int, Field(ge=0)]  # 0: no cap
SplitBy: TypeAlias = Literal["user", "time", "user_time", "prompt"]

#: A judge and a system speak often and cheaply; a reviewer was asked to look.
RATER_WEIGHTS: Mapping[str, float] = {"user": 1.0, "reviewer": 2.0, "judge": 0.5, "system": 0.5}


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything besides the records that decides which rows a dataset has. Stands in its manifest."""

    kind: Kind
    seed: int = 0
    tenant: str = ""  # empty: all
    policy: str = ""  # only answers of this adapter digest
    routes: tuple[str, ...] = ()  # only what was asked of these models; empty: all

    # Words
    rater_kinds: Mapping[str, _Weight] = field(default_factory=lambda: dict(RATER_WEIGHTS))
    raters: Mapping[str, _Weight] = field(default_factory=dict)  # by pseudonym, times their kind's weight
    weight_min: _Weight = 0.1  # less than this is not worth a row
    conversation_weight: _Weight = 0.25  # of a word on a whole conversation, for an answer without one of its own
    scales: tuple[str, ...] = ()  # names of scalars that are scores; empty: all
    score_margin: _Weight = 0.5  # from the rater's own mean, to be good or bad
    gap_min: _Weight = 1.0  # between two scores, to prefer one answer
    pairs_per_prompt: Annotated[int, Field(ge=1, le=100)] = 3
    implicit: Mapping[str, bool] = field(default_factory=dict)  # what counts as a thumb: {"copied": true}
    edit_min: Annotated[float, Field(ge=0, le=1)] = 0.02  # a correction's distance, of 1, to prefer it by
    likes_too: bool = False  # sft: answers with a thumb up as well
    unrated_too: bool = False  # rl: prompts that nobody judged as well

    # Text
    personal: Literal["drop", "mask"] = "drop"  # what to do with personal data that is still there
    tokens_max: Annotated[int, Field(ge=8)] = 2048
    similar: Annotated[float, Field(ge=0.5, le=1)] = 0.8  # Jaccard similarity of near-duplicates

    # How many of what
    near_duplicates: Annotated[int, Field(ge=1)] = 1  # kept of those that are nearly the same
    user_cap: _Cap = 50
    cluster_cap: _Cap = 0
    route_cap: _Cap = 0
    label_cap: _Cap = 0
    route_weights: Mapping[str, _Weight] = field(default_factory=dict)
    label_weights: Mapping[str, _Weight] = field(default_factory=dict)  # "up", "down"
    cluster_balance: Annotated[float, Field(ge=0, le=1)] = 0.0  # weight falls with the cluster's size to this power

    # Split
    evaluation: _Share = 0.1
    split: SplitBy = "user"
    generations_max: Annotated[int, Field(ge=0)] = 2  # answers of older policies bring a warning

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        document: dict[str, Any] = orjson.loads(orjson.dumps(self))
        return document


_ADAPTER: TypeAdapter[Rules] = TypeAdapter(Rules)


def parse(document: Mapping[str, Any]) -> Rules:
    """Rules from a decoded document. Raises BadRules, with every problem."""
    try:
        return _ADAPTER.validate_python(dict(document))
    except ValidationError as problem:
        told = []
        for each in problem.errors(include_url=False):
            where = ".".join(map(str, each["loc"])) or "rules"
            told.append(f"{where}: {each['msg']}" + ("" if each["type"] == "missing" else f", found {each['input']!r}"))
        raise BadRules(told) from problem


def read(path: Path, **over: Any) -> Rules:
    """Rules from a TOML file, with what is given besides on top. Raises BadRules."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as problem:
        raise BadRules([f"{path}: {problem}"]) from problem
    return parse({**document, **over})
