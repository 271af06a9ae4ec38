"""From a request for a job to a recipe: pure, and every problem is told together, in the request's own words.

`method.type` is OpenAI's supervised, dpo or reinforcement, or one of ours; hyperparameters are OpenAI's, where "auto"
leaves the choice to `training.recipes.auto`, and a recipe's own settings under short names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from training.files.errors import BadJobRequest
from training.files.graders import reward
from training.files.of_jobs import KINDS
from training.files.sources import Found, serves
from training.recipes.auto import rate_for
from training.recipes.errors import BadRecipe
from training.recipes.recipe import METHODS, ONLINE, SERVED_RANKS, Method, build

#: OpenAI's words for methods that have another name here.
TYPES: Final[Mapping[str, str]] = {"supervised": "sft", "reinforcement": "grpo"} | {
    name: name for name in ("auto", *METHODS) if name != "sft"
}
#: Our hyperparameters, and where in a recipe each stands. `{method}` is the section of the method.
SETTINGS: Final[Mapping[str, str]] = {
    "n_epochs": "optim.epochs",
    "steps": "optim.steps",
    "learning_rate": "optim.learning_rate",
    "scheduler": "optim.scheduler",
    "warmup_steps": "optim.warmup_steps",
    "weight_decay": "optim.weight_decay",
    "optimizer": "optim.optimizer",
    "precision": "optim.precision",
    "clip": "optim.clip",
    "lora_plus": "optim.lora_plus",
    "neftune": "optim.neftune",
    "checkpointing": "optim.checkpointing",
    "patience": "optim.patience",
    "eval_interval": "optim.evaluate_every",
    "save_every": "optim.save_every",
    "rank": "adapter.rank",
    "alpha": "adapter.alpha",
    "dropout": "adapter.dropout",
    "targets": "adapter.targets",
    "kind": "adapter.kind",
    "quantization": "quantization",
    "tuning": "tuning",
    "tokens_max": "data.tokens_max",
    "rows_max": "data.rows_max",
    "packing": "sft.packing",
    "assistant_only": "sft.assistant_only",
    "beta": "{method}.beta",
    "loss": "{method}.loss",
    "loss_weights": "dpo.weights",
    "label_smoothing": "dpo.label_smoothing",
    "liked_weight": "kto.liked_weight",
    "disliked_weight": "kto.disliked_weight",
    "rewards": "rl.rewards",
    "generations": "rl.generations",
    "answer_tokens_max": "rl.answer_tokens_max",
    "temperature": "rl.temperature",
    "kl_max": "rl.kl_max",
    "gate": "gate",
}
#: Which have a section of their own, and so a beta.
_SECTIONS: Final[Mapping[str, str]] = {
    "kto": "kto", "dpo": "dpo", "orpo": "orpo", "grpo": "rl", "rloo": "rl", "ppo": "rl",
}  # fmt: skip
_WITH_LOSS: Final = ("dpo", "kto")
#: OpenAI's that have nothing here which they could decide; only their defaults are taken.
_DEFAULTS_ONLY: Final[Mapping[str, frozenset[object]]] = {
    "eval_samples": frozenset({"auto"}),
    "compute_multiplier": frozenset({"auto", 1}),
    "reasoning_effort": frozenset({"default"}),
}
_NO_MODEL: Final = (
    "a reward model gives scores and no words, so there would be nothing to serve. Train it with `graftline train` "
    "and name its folder among the rewards of a recipe"
)
_SPECIAL: Final = ("batch_size", "learning_rate_multiplier", "replay", "replay_share")
#: The recipe's own default.
GENERATIONS: Final = 8
#: Steps between the places that a job can go on from.
SAVE_EVERY: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a job, as far as it decides the recipe. `start_from` is `base` or NAME:NUMBER."""

    name: str
    seed: int
    start_from: str = "base"
    type: str = "supervised"
    #: What stands under the method's name: hyperparameters, and a grader.
    method: Mapping[str, Any]
    #: Top-level hyperparameters, as old clients send them.
    hyperparameters: Mapping[str, Any]
    #: Integrations, by type.
    reports: tuple[str, ...] = ()
    #: Where on W&B the run stands.
    wandb: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the job learns from."""

    train: Found
    held: Found | None = None
    replay: Found | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the recipe must fit. `parameters` is the size of the base."""

    rank_max: int = 16
    parameters: int = 0


def recipe_for(asked: Asked, rows: Rows, server: Server) -> dict[str, Any]:
    """The recipe, complete. Raises BadJobRequest."""
    problems: list[tuple[str, str]] = []
    method = TYPES.get(asked.type, "")
    if not method:
        problems.append(("method.type", f"found {asked.type[:60]!r}; allowed: {', '.join(TYPES)}"))
        raise BadJobRequest(problems)
    recipe: dict[str, Any] = {
        "name": asked.name,
        "method": method,
        "start_from": asked.start_from,
        "seed": asked.seed,
        "data": {"train": rows.train.name, **_held(rows, method)},
        "adapter": {"rank_max": max((rank for rank in SERVED_RANKS if rank <= server.rank_max), default=1)},
    }
    if method == "reward":
        problems.append(("method.type", _NO_MODEL))
    told: dict[str, Any] = {"report": list(asked.reports), "wandb": dict(asked.wandb)}
    recipe |= {name: value for name, value in told.items() if value}
    _fit(rows, method, problems)
    said = _hyperparameters(asked, problems)
    for name, value in said.items():
        _set(recipe, name, value, method, problems)
    _batches(recipe, said, method, problems)
    _rate(recipe, said, method, server, problems)
    _replay(recipe, said, rows, problems)
    _grade(recipe, asked, method, problems)
    if method != "ppo":  # its loop cannot go on from the middle
        recipe.setdefault("optim", {}).setdefault("save_every", SAVE_EVERY)
    try:
        build(recipe)
    except BadRecipe as error:
        problems += [_in_the_clients_words(problem, asked.type) for problem in error.problems]
    if problems:
        raise BadJobRequest(problems)
    return recipe


def _held(rows: Rows, method: str) -> dict[str, str]:
    """What is evaluated: what was brought for it, or what the training rows themselves give up."""
    if method == "ppo":
        return {}  # its loop has no held-out loss
    if rows.held is not None:
        return {"held": rows.held.name}
    return {"held": rows.train.name} if rows.train.file is not None or rows.train.held else {}


def _fit(rows: Rows, method: str, problems: list[tuple[str, str]]) -> None:
    sources = {"training_file": rows.train, "validation_file": rows.held, "replay": rows.replay}
    wanted = KINDS.get(method, rows.train.kind)
    for param, found in sources.items():
        if found is not None and not serves(found, wanted):
            what = f"{found.name} holds rows for {found.kind}; the method {method} learns from rows for {wanted}"
            problems.append((param, what))


def _hyperparameters(asked: Asked, problems: list[tuple[str, str]]) -> dict[str, Any]:
    """What was said, without what was left to be chosen. The method's own win over those of old clients."""
    inner = asked.method.get("hyperparameters") or {}
    if not isinstance(inner, Mapping):
        problems.append((f"method.{asked.type}.hyperparameters", "must be an object"))
        inner = {}
    strange = sorted(asked.method.keys() - {"hyperparameters", "grader"})
    problems += [(f"method.{asked.type}.{name}", "unknown key; allowed: hyperparameters, grader") for name in strange]
    known = {*SETTINGS, *_SPECIAL, *_DEFAULTS_ONLY}
    said: dict[str, Any] = {}
    for name, value in {**asked.hyperparameters, **inner}.items():
        place = _place(asked.type, name)
        if name not in known:
            problems.append((place, f"unknown; allowed: {', '.join(sorted(known))}"))
        elif name in _DEFAULTS_ONLY:
            if value is not None and not any(value == each for each in _DEFAULTS_ONLY[name]):
                listed = ", ".join(sorted({str(each) for each in _DEFAULTS_ONLY[name]}))
                problems.append((place, f"found {value!r}; nothing here depends on it. Allowed: {listed}"))
        elif value is not None and value != "auto":
            said[name] = value
    return said


def _set(recipe: dict[str, Any], name: str, value: Any, method: str, problems: list[tuple[str, str]]) -> None:
    """Put one of our settings where the recipe has it."""
    if name not in SETTINGS:
        return
    place = SETTINGS[name]
    if "{method}" in place:
        having = _WITH_LOSS if name == "loss" else tuple(_SECTIONS)
        if method not in having:
            problems.append((name, f"goes with {', '.join(having)}; found {method}"))
            return
        place = place.format(method=_SECTIONS[method])
    if name == "loss" and method == "dpo" and isinstance(value, str):
        value = [value]
    section, _, key = place.partition(".")
    if key:
        recipe.setdefault(section, {})[key] = value
    else:
        recipe[section] = value


def _batches(recipe: dict[str, Any], said: Mapping[str, Any], method: str, problems: list[tuple[str, str]]) -> None:
    """Rows a step. Of methods that sample, each row is answered several times, and the answers make the batch."""
    if "batch_size" not in said:
        return
    size = said["batch_size"]
    if type(size) is not int or not 1 <= size <= 4096:
        problems.append(("batch_size", f"found {size!r}; it must be 'auto' or a whole number from 1 to 4096"))
        return
    answers = recipe.get("rl", {}).get("generations", GENERATIONS) if method in ONLINE else 1
    recipe.setdefault("optim", {})["batch"] = size * (answers if type(answers) is int else 1)
    recipe["optim"]["accumulate"] = 1


def _rate(
    recipe: dict[str, Any], said: Mapping[str, Any], method: str, server: Server, problems: list[tuple[str, str]]
) -> None:
    """A multiple of the rate that would be chosen."""
    if "learning_rate_multiplier" not in said:
        return
    times = said["learning_rate_multiplier"]
    if type(times) not in (int, float) or not 0 < times <= 1000:
        problems.append(
            ("learning_rate_multiplier", f"found {times!r}; it must be 'auto' or a number above 0, at most 1000")
        )
    elif "learning_rate" in said:
        problems.append(("learning_rate_multiplier", "goes without learning_rate, which says all of it"))
    elif times != 1 and method not in METHODS:
        problems.append(("learning_rate_multiplier", "needs a method that is named; found auto"))
    elif times != 1:
        known: Method = next(each for each in METHODS if each == method)
        chosen = rate_for(known, server.parameters, whole=recipe.get("tuning", "adapter") != "adapter")
        recipe.setdefault("optim", {})["learning_rate"] = float(f"{chosen * times:.3g}")


def _replay(recipe: dict[str, Any], said: Mapping[str, Any], rows: Rows, problems: list[tuple[str, str]]) -> None:
    """Rows mixed in against forgetting: a file, a dataset, or rows of the embedded base's own."""
    source = said.get("replay")
    if source is None:
        if "replay_share" in said:
            problems.append(("replay_share", "goes with replay only"))
        return
    name = rows.replay.name if rows.replay is not None else source
    if rows.replay is None and not (isinstance(source, str) and source.startswith("tidewell:")):
        problems.append(("replay", f"found {str(source)[:60]!r}; it must be file-…, sha256:… or tidewell:NAME"))
        return
    share = {"share": said["replay_share"]} if "replay_share" in said else {}
    recipe["data"]["replay"] = {"source": name, **share}


def _grade(recipe: dict[str, Any], asked: Asked, method: str, problems: list[tuple[str, str]]) -> None:
    """OpenAI's grader as a reward; our own rewards stand among the hyperparameters."""
    grader = asked.method.get("grader")
    rewards = recipe.get("rl", {}).get("rewards", [])
    for at, each in enumerate(rewards if isinstance(rewards, list) else []):
        if str(each).startswith("model:"):
            problems.append((f"rewards[{at}]", "a model's folder is for the server to name: use a recipe file"))
    if grader is None:
        return
    if method not in ONLINE:
        problems.append((f"method.{asked.type}.grader", f"goes with {', '.join(sorted(ONLINE))}; found {method}"))
        return
    found = reward(grader)
    if found.problem:
        problems.append((f"method.{asked.type}.grader", found.problem))
    else:
        recipe.setdefault("rl", {})["rewards"] = [*(rewards if isinstance(rewards, list) else []), found.name]


def _in_the_clients_words(problem: str, type_: str) -> tuple[str, str]:
    """A recipe's problem under the name that the client used."""
    place, colon, what = problem.partition(": ")
    for name, path in SETTINGS.items():
        if colon and (path == place or (path.startswith("{method}") and place.partition(".")[2] == name)):
            return _place(type_, name), what
    return "", problem


def _place(type_: str, name: str) -> str:
    return f"method.{type_}.hyperparameters.{name}"
