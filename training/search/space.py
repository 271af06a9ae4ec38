"""What a search may change, and what it looks at: read strictly, held against the recipe. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from training.recipes import recipe as recipes
from training.recipes import strict_yaml
from training.recipes.errors import BadRecipe
from training.recipes.recipe import ONLINE, Recipe
from training.recipes.sections import Count, Strict

Number = int | float
#: Never searched: what decides which run it is, and what it is measured on.
_FIXED: Final = {
    "name": "it names the run",
    "seed": "a seed that wins has won by luck",
    "base": "losses on two bases cannot be compared",
    "method": "losses of two methods cannot be compared; make a search for each",
    "data.held": "it is what trials are measured on",
    "data.seed": "it decides the held-out rows of a tidewell: source",
    "optim.evaluate_every": "trials would be looked at at other moments",
}
#: Settings that stand in the loss itself: with them, a lower loss is no better model.
_IN_THE_LOSS: Final = frozenset(
    {
        "dpo.beta", "dpo.loss", "dpo.weights", "dpo.label_smoothing", "kto.beta", "kto.loss", "kto.liked_weight",
        "kto.disliked_weight", "orpo.beta", "rl.beta", "sft.assistant_only",
    }
)  # fmt: skip
_LOSS: Final = "eval_loss"


class Between(Strict):
    """Numbers from `low` to `high`; whole ones where both are whole."""

    low: Number
    high: Number
    log: bool = Field(False, description="Try 1e-4 to 1e-3 as often as 1e-3 to 1e-2.")
    step: Number | None = Field(None, description="Only every so many.")

    @property
    def whole(self) -> bool:
        """Whether whole numbers are meant."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def problems(self) -> list[str]:
        """What is wrong with it."""
        found = []
        if not self.low < self.high:
            found.append(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            found.append(f"log needs a low above 0; found {self.low}")
        if self.log and self.step is not None:
            found.append("log and step exclude each other")
        if self.step is not None and self.step <= 0:
            found.append(f"step must be above 0; found {self.step}")
        return found

    def ends(self) -> tuple[Any, ...]:
        """Both ends: a recipe that takes these takes what lies between."""
        return self.low, self.high


class OneOf(Strict):
    """A value of a list."""

    one_of: tuple[Any, ...] = Field(min_length=2)

    def problems(self) -> list[str]:
        """What is wrong with it."""
        said = [json.dumps(value, sort_keys=True) for value in self.one_of]
        return ["one_of holds a value twice"] if len(set(said)) < len(said) else []

    def ends(self) -> tuple[Any, ...]:
        """Every value."""
        return self.one_of


class Prune(Strict):
    """When a trial is given up: where it is worse than half of those before were after as many evaluations."""

    off: bool = False
    trials: Count = Field(4, description="So many are never given up: there is too little to hold them against.")
    evaluations: Annotated[int, Field(ge=0)] = Field(1, description="So many of a trial are only looked at.")


class Search(Strict):
    """One search."""

    trials: Count = Field(20, description="How many runs.")
    seed: int = Field(0, ge=0, description="Decides what is tried, together with what was seen.")
    random: Count = Field(6, description="So many are drawn by chance, before what was seen guides the choice.")
    measure: str = Field(_LOSS, description="A number of the held-out evaluation, such as eval_loss.")
    direction: Literal["auto", "minimize", "maximize"] = Field("auto", description="auto: a loss is minimized.")
    prune: Prune = Prune()
    space: dict[str, Between | OneOf] = Field(min_length=1, description="Setting → its values, such as adapter.rank.")

    @property
    def smaller_is_better(self) -> bool:
        """Which way is up."""
        if self.direction != "auto":
            return self.direction == "minimize"
        return self.measure.rpartition("_")[2] in ("loss", "entropy", "perplexity")


def read(text: str) -> Search:
    """The search in a YAML text: one mapping, `search:`. Raises BadRecipe with every problem."""
    fields = strict_yaml.read(text)
    if fields.keys() != {"search"} or not isinstance(fields["search"], dict):
        found = ", ".join(map(str, fields)) or "nothing"
        raise BadRecipe([f"a search's file holds one mapping called search; found {found}"])
    try:
        # By way of JSON, strict types are those of the file, as in a recipe.
        return Search.model_validate_json(json.dumps(fields["search"]), strict=True)
    except ValidationError as error:
        raise BadRecipe(_problems(error)) from error


def usual(fields: Mapping[str, Any]) -> Search:
    """A search for a recipe that comes without one: the learning rate around what `auto` would take, and the rank."""
    recipe = recipes.build(dict(fields))
    space: dict[str, Between | OneOf] = {"optim.learning_rate": Between(low=1e-5, high=1e-2, log=True)}
    room = recipe.adapter.rank_max // 2 if recipe.adapter.kind == "pissa" else recipe.adapter.rank_max
    ranks = tuple(rank for rank in (4, 8, 16, 32) if rank <= room)
    if recipe.tuning == "adapter" and recipe.start_from == "base" and len(ranks) > 1:
        space["adapter.rank"] = OneOf(one_of=ranks)
    return Search(space=space)


def checked(search: Search, fields: Mapping[str, Any]) -> Recipe:
    """The recipe of `fields`, where the search fits it. Raises BadRecipe with every problem."""
    recipe = recipes.build(dict(fields))
    found = _measured(search, recipe)
    for name, values in search.space.items():
        if name in _FIXED or name.partition(".")[0] in ("gate", "launch", "report", "wandb"):
            found.append(f"space.{name}: cannot be searched; {_FIXED.get(name, 'it does not change what comes out')}")
            continue
        if search.measure == _LOSS and name in _IN_THE_LOSS:
            found.append(
                f"space.{name}: stands in the loss itself, so a lower {_LOSS} would mean nothing; set search.measure "
                "to another number of the evaluation, such as eval_rewards/accuracies"
            )
        wrong = values.problems()
        found += [f"space.{name}: {problem}" for problem in wrong]
        if not wrong:
            found += _refused(fields, name, values)
    if found:
        raise BadRecipe(list(dict.fromkeys(found)))
    return recipe


def applied(fields: Mapping[str, Any], picked: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's fields with the picked values in their places."""
    made = copy.deepcopy(dict(fields))
    for name, value in picked.items():
        *above, last = name.split(".")
        spot = made
        for part in above:
            spot = spot.setdefault(part, {})
        spot[last] = value
    if "optim.epochs" in picked and isinstance(made.get("optim"), dict):
        made["optim"].pop("steps", None)
    return made


def value_of(readings: Mapping[int, float], losses: Mapping[int, float], *, best: bool) -> tuple[int, float]:
    """(step, number) that a trial is worth: its last, or that of the step whose weights early stopping goes back to."""
    step = min(losses, key=lambda at: (losses[at], at)) if best and losses else max(readings)
    return step, readings[step]


def _measured(search: Search, recipe: Recipe) -> list[str]:
    found = []
    if recipe.data.held is None and recipe.method != "ppo":
        found.append(
            "data.held: the recipe names no held-out rows, and what was learnt from does not tell which is best"
        )
    if recipe.method == "ppo":
        found.append("method: ppo evaluates nothing while it trains; search with grpo or rloo")
    if recipe.method in ONLINE and search.measure == _LOSS:
        found.append(f"measure: the loss of {recipe.method} says little of its answers; set it to eval_reward")
    if not search.measure.startswith("eval_"):
        found.append(f"measure: {search.measure!r} is no number of an evaluation; their names begin with eval_")
    return found


def _refused(fields: Mapping[str, Any], name: str, values: Between | OneOf) -> list[str]:
    """What the recipe says against the values, each tried alone."""
    found = []
    for value in values.ends():
        try:
            recipes.build(applied(fields, {name: value}))
        except BadRecipe as error:
            found += [f"space.{name} = {json.dumps(value)}: {problem}" for problem in error.problems]
        except AttributeError:
            found.append(f"space.{name}: the recipe has a plain value where this wants a mapping")
    return found


def _problems(error: ValidationError) -> list[str]:
    """One line a place; pydantic also names the branches of a union, which are nobody's keys."""
    places: dict[str, list[str]] = {}
    for one in error.errors(include_url=False):
        place = ".".join(str(part) for part in one["loc"] if part not in ("Between", "OneOf", "int", "float"))
        places.setdefault(place, []).append(one["msg"].removeprefix("Input ").rstrip("."))
    return [f"search.{place}: {'; or '.join(dict.fromkeys(said))}" for place, said in places.items()]
