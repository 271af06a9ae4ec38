"""The search itself: Optuna says what to try next, trials say what it is worth, and everything stands in one folder.

out/search.db      what was tried; a search that was killed goes on from it, and tries what it would have tried
out/trial-NNN/     one run each, as `graftline train` leaves it, without its checkpoints
out/best.yaml      the best recipe so far
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from training.errors import CannotSearch
from training.launchers.values import Launcher, training
from training.recipes.recipe import Recipe
from training.search.space import Between, Search, applied, checked
from training.search.trial import Ended, State, run

BEST: Final = "best.yaml"
_REST_S: Final = 0.2
_FAILURES_MAX: Final = 5
#: A run that fails so would fail with every other setting too.
_HOPELESS: Final = frozenset({"bad_rows", "bad_template", "bad_checkpoint", "too_stale", "disk_full", "io_error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One line of the table. `value` is the measure where the trial ended, at `step`."""

    number: int
    state: State
    value: float | None
    step: int
    picked: Mapping[str, Any]
    seconds: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to. `best` is None where no trial was finished; then there is no recipe either."""

    trials: tuple[Trial, ...]
    best: Trial | None
    recipe: Path


def search(
    fields: Mapping[str, Any],
    wanted: Search,
    out: Path,
    *,
    launcher: Launcher,
    base: Path | None = None,
    start: Path | None = None,
    told: Callable[[Trial], None] | None = None,
    rest: Callable[[], None] | None = None,
) -> Found:
    """Try `wanted.trials` settings of the recipe in `fields`, or as many as are still missing in the folder `out`.

    Raises BadRecipe with every problem before anything is tried, and CannotSearch.
    """
    recipe = checked(wanted, fields)
    with _alone(out):
        study = _study(out, recipe, fields, wanted)
        while len(trials := _trials(study, wanted)) < wanted.trials:
            _hopeful(trials)
            trial = _one(study, fields, recipe, wanted, out, len(trials), launcher, base, start, rest or _rest)
            if told is not None:
                told(trial)
            _keep_best(_trials(study, wanted), fields, wanted, out)
        trials = _trials(study, wanted)
        return Found(trials=trials, best=_keep_best(trials, fields, wanted, out), recipe=out / BEST)


def _one(
    study: Any, fields: Mapping[str, Any], recipe: Recipe, wanted: Search, out: Path, number: int, launcher: Launcher,
    base: Path | None, start: Path | None, rest: Callable[[], None],
) -> Trial:  # fmt: skip
    """One trial, from what Optuna proposes to what it is told."""
    import optuna

    # A new one each time, and seeded: a search that was killed proposes again what it would have proposed.
    study.sampler = optuna.samplers.TPESampler(seed=wanted.seed * 1_000_003 + number, n_startup_trials=wanted.random)
    asked = study.ask(_distributions(wanted))
    folder = out / f"trial-{number:03d}"
    folder.mkdir(exist_ok=True)
    picked = _picked(asked.params, wanted)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(applied(fields, picked), sort_keys=False, allow_unicode=True))

    def lags(evaluation: int, value: float) -> bool:
        asked.report(value, evaluation)
        return not wanted.prune.off and bool(asked.should_prune())

    began = time.monotonic()
    spec = training(
        name=f"{recipe.name}-trial-{number:03d}",
        recipe=path,
        folder=folder,
        launch=recipe.launch,
        base=base,
        start=start,
    )
    ended = run(launcher, spec, measure=wanted.measure, best=recipe.optim.patience is not None, lags=lags, rest=rest)
    if ended.code in _HOPELESS:
        raise CannotSearch(f"trial {number} failed, as every other one would ({ended.code}): {ended.why}")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    seconds = round(time.monotonic() - began, 2)
    asked.set_user_attr("seconds", seconds)
    asked.set_user_attr("step", ended.step)
    if ended.why:
        asked.set_user_attr("why", f"{ended.code}: {ended.why}"[:1000])
    _tell(study, asked, ended)
    return _trials(study, wanted)[-1]


def _tell(study: Any, asked: Any, ended: Ended) -> None:
    import optuna

    states = optuna.trial.TrialState
    if ended.state == "done":
        study.tell(asked, ended.value)
    else:
        study.tell(asked, state=states.PRUNED if ended.state == "pruned" else states.FAIL)


def _study(out: Path, recipe: Recipe, fields: Mapping[str, Any], wanted: Search) -> Any:
    """The study that stands in the folder, or a new one. Raises CannotSearch for one of something else."""
    try:
        import optuna
    except ImportError as error:
        raise CannotSearch("A search needs Optuna, which is not installed: install the extra `search`.") from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    prune = wanted.prune
    study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{(out / 'search.db').absolute()}",
        direction="minimize" if wanted.smaller_is_better else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=prune.trials, n_warmup_steps=prune.evaluations + 1),
        load_if_exists=True,
    )
    # More trials may be asked for later; everything else decides what was tried.
    asked = {"fields": fields, "search": wanted.model_dump(mode="json", exclude={"trials"})}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    if study.user_attrs.setdefault("asked", digest) != digest:
        raise CannotSearch(f"{out} holds a search of another recipe or another space: choose another --out.")
    study.set_user_attr("asked", digest)
    for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)  # its search was killed; it is tried again
    return study


def _trials(study: Any, wanted: Search) -> tuple[Trial, ...]:
    """What was tried to its end, oldest first; what was cut off with its search does not count."""
    found: list[Trial] = []
    states: dict[str, State] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
    for one in study.get_trials(deepcopy=False):
        state, why = states.get(one.state.name), str(one.user_attrs.get("why", ""))
        if state is None or (state == "failed" and not why):
            continue
        found.append(
            Trial(
                number=len(found), state=state, value=one.value, step=int(one.user_attrs.get("step", 0)),
                picked=_picked(one.params, wanted), seconds=float(one.user_attrs.get("seconds", 0.0)), why=why,
            )
        )  # fmt: skip
    return tuple(found)


def _distributions(wanted: Search) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, values in wanted.space.items():
        if not isinstance(values, Between):
            # As JSON, so that lists and mappings can be chosen from as well, and "8" is not 8.
            found[name] = CategoricalDistribution([json.dumps(value, sort_keys=True) for value in values.one_of])
        elif values.whole:
            found[name] = IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
        else:
            low, high = float(values.low), float(values.high)
            found[name] = FloatDistribution(low, high, log=values.log, step=values.step)
    return found


def _picked(params: Mapping[str, Any], wanted: Search) -> dict[str, Any]:
    return {
        name: value if isinstance(wanted.space[name], Between) else json.loads(value) for name, value in params.items()
    }


def _hopeful(trials: Sequence[Trial]) -> None:
    last = trials[-_FAILURES_MAX:]
    if len(last) == _FAILURES_MAX and all(trial.state == "failed" for trial in trials):
        raise CannotSearch(f"The first {len(trials)} trials all failed; the last: {last[-1].why}")


def _keep_best(trials: Sequence[Trial], fields: Mapping[str, Any], wanted: Search, out: Path) -> Trial | None:
    """The best finished trial, whose recipe is written down."""
    done = [trial for trial in trials if trial.state == "done" and trial.value is not None]
    if not done:
        return None
    turn = 1 if wanted.smaller_is_better else -1
    best = min(done, key=lambda trial: (turn * (trial.value or 0.0), trial.number))
    title = (
        f"# The best of {len(trials)} trials: number {best.number}, {wanted.measure} {best.value:.6g} at {best.step}.\n"
    )
    building = out / f".{BEST}"
    building.write_text(title + yaml.safe_dump(applied(fields, best.picked), sort_keys=False, allow_unicode=True))
    os.replace(building, out / BEST)
    return best


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two searches in one folder would try everything twice, into the same runs."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotSearch(f"Another search is going on in {out}; wait for it, or choose another --out.") from error
        yield


def _rest() -> None:
    time.sleep(_REST_S)
