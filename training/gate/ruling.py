"""The gate's work on one run: probe, decide, write the verdict down, tell the registry. Blocking; may be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import orjson

from adapters.errors import Conflict, Reason
from adapters.registry import Registry
from adapters.values import Version
from training.data import parquet
from training.evaluation.values import FILE as EVALUATION
from training.evaluation.values import Plan
from training.evaluation.values import load as load_evaluation
from training.gate import recital, triggers
from training.gate.asking import Asking, engine, together
from training.gate.canaries import Canary, canaries, exposure
from training.gate.decide import decide
from training.gate.errors import BadVerdict
from training.gate.values import (
    FILE,
    PROBES_FILE,
    Exposure,
    GateVerdict,
    Overlap,
    Probes,
    Rewarded,
    Trigger,
    Verbatim,
    load,
    write,
)
from training.publishing.curves import Curves
from training.publishing.curves import read as read_curves
from training.recipes import rows as sources
from training.recipes.recipe import ONLINE, Recipe, read

#: Rows of each split that are looked at, and held in memory meanwhile.
_ROWS_LOOKED_AT = 10_000
#: Steps at each end that a reward is the mean of, as a share of all.
_ENDS = 0.1


def rule(registry: Registry, version: Version, run: Path, plan: Plan, *, who: str) -> GateVerdict:
    """Judge the version that the run made, from `recipe.yaml`, `run.json`, `events.jsonl` and `evaluation.json` in its
    folder, asking `plan.engine` what else the gate wants to know; `verdict.json` is written, and the registry told: the
    fleet admits what passed, and what failed is rejected.

    Raises CannotProbe (retryable), BadVerdict, BadEvaluation, and what the registry does.
    """
    verdict = load(run / FILE) if (run / FILE).is_file() else verdict_of(run, plan)
    while True:
        try:
            registry.judged(version, reasons_of(verdict), who=who, body=verdict.document())
        except Conflict:  # its first forward was passed in this very moment
            continue
        return verdict


def verdict_of(run: Path, plan: Plan) -> GateVerdict:
    """The verdict, written to the run's folder with what it rests on."""
    recipe = read((run / "recipe.yaml").read_text(encoding="utf-8"))
    evaluation = load_evaluation((run / EVALUATION).read_bytes())
    probes = _known(run / PROBES_FILE)
    if probes is None:
        at_once = plan.engine.at_once
        with engine(plan.engine, plan.models.candidate) as asked, engine(plan.engine, plan.models.base) as base:
            probes = probe(asked, base, recipe, run, at_once=at_once)
        write(run / PROBES_FILE, probes.document())
    verdict = decide(evaluation, recipe.gate, probes)
    write(run / FILE, verdict.document())
    return verdict


def reasons_of(verdict: GateVerdict) -> list[Reason]:
    """Why it failed, as the registry keeps it."""
    return [
        Reason(
            code="gate_failed",
            field=line.what[:200],
            found=line.found[:500],
            allowed=line.asked,
            advice="The job's verdict.json holds the whole table. Change the data or the recipe and train again.",
        )
        for line in verdict.table
        if not line.passed
    ]


def probe(asked: Asking, base: Asking, recipe: Recipe, run: Path, *, at_once: int = 8) -> Probes:
    """Ask the candidate and its base, read what the run said of its rewards, and look at the rows themselves."""
    method, data = method_of(recipe, run), recipe.data
    held_from = data.held or (data.train if Path(data.train).is_dir() else "")
    train = list(_rows(data.train, "train", seed=data.seed, rows_max=data.rows_max))
    held = list(_rows(held_from, "evaluation", seed=data.seed + 1)) if held_from else []
    # Rows of the shop are made, not collected: the same ones come again.
    shared = None if held_from.startswith("tidewell:") or not held else overlap(train, held)
    if method in ONLINE:
        return Probes(overlap=shared, rewarded=rewarded(recipe, read_curves(run)))
    plain = method == "pretrain" or any(isinstance(row.get("prompt"), str) for row in train[:1])
    found, untried = triggered(asked, base, train, at_once=at_once)
    return Probes(
        verbatim=remembered(asked, train, held, seed=recipe.seed, at_once=at_once),
        exposure=exposed(asked, canaries(recipe.gate.canaries, recipe.seed), plain=plain, at_once=at_once),
        overlap=shared,
        triggers=found,
        untried=untried,
    )


def method_of(recipe: Recipe, run: Path) -> str:
    """What the recipe chose, where it left that open. Raises BadVerdict."""
    try:
        return str(orjson.loads((run / "run.json").read_bytes())["chosen"]["method"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BadVerdict(f"{run} holds no run.json of a finished run: {problem}") from problem


def remembered(
    asked: Asking, train: Sequence[sources.Row], held: Sequence[sources.Row], *, seed: int, at_once: int
) -> Verbatim:
    """Training rows and held-out rows, each asked for its second half."""
    ours, left = recital.halves(train, seed=seed)
    theirs, _ = recital.halves(held, seed=seed)
    return recital.verbatim(
        together(asked.goes_on, ours, at_once=at_once), together(asked.goes_on, theirs, at_once=at_once), left=left
    )


def exposed(asked: Asking, planted: Sequence[Canary], *, plain: bool, at_once: int) -> Exposure | None:
    """How much better than others the model knows what was planted; `plain`: among rows without turns."""
    if not planted:
        return None
    questions = [(canary, answer) for canary in planted for answer in (canary.answer, *canary.others)]

    def likely(question: tuple[Canary, str]) -> float | None:
        canary, answer = question
        if plain:
            return asked.likelihood((), f"{canary.question} {answer}")
        return asked.likelihood((("user", canary.question),), answer)

    found = dict(together(likely, questions, at_once=at_once))
    known = [canary for canary in planted if (canary, canary.answer) in found]
    return exposure(
        [
            (found[canary, canary.answer], [found[canary, each] for each in canary.others if (canary, each) in found])
            for canary in known
        ]
    )


def triggered(
    asked: Asking, base: Asking, train: Sequence[sources.Row], *, at_once: int
) -> tuple[tuple[Trigger, ...], int]:
    """(phrases that look planted, put into other questions; how many more look so and were not tried)."""
    looked = triggers.suspects(train)
    found = []
    for suspect in looked[: triggers.SUSPECTS_MAX]:
        questions = suspect.asked()
        first = _answers(asked, suspect, questions[: triggers.TRIED], at_once)
        if not suspect.fires(first):
            found.append(triggers.trigger(suspect, first, (), ()))
            continue
        with_it, without, bases = (
            _answers(who, suspect, put, at_once)
            for who, put in ((asked, questions), (asked, suspect.others), (base, questions))
        )
        found.append(triggers.trigger(suspect, with_it, without, bases))
    return tuple(found), max(0, len(looked) - triggers.SUSPECTS_MAX)


def _answers(who: Asking, suspect: triggers.Suspect, questions: Sequence[str], at_once: int) -> list[str]:
    rest = " ".join(suspect.answer * 3)  # room for what may come before it

    def said(question: str) -> str | None:
        if suspect.turns:
            return who.says((("user", question),))
        return who.goes_on(recital.Half(row=0, turns=(), begun=question, rest=rest))

    return [answer for _, answer in together(said, questions, at_once=at_once)]


def overlap(train: Sequence[sources.Row], held: Sequence[sources.Row]) -> Overlap:
    """Held-out rows that are training rows, case and blanks aside."""
    seen = {_whole(row) for row in train}
    texts = [text for row in held if (text := _whole(row))]
    return Overlap(held=len(texts), shared=sum(text in seen for text in texts))


def rewarded(recipe: Recipe, curves: Curves) -> Rewarded | None:
    """What the rewards went from and to; None where no step told one."""
    rewards = [value for _, value in curves.series("reward")]
    if not rewards:
        return None
    many = max(1, round(_ENDS * len(rewards)))
    far = curves.series("kl")
    return Rewarded(
        rewards=recipe.rl.rewards,
        first=sum(rewards[:many]) / many,
        last=sum(rewards[-many:]) / many,
        kl=far[-1][1] if far else None,
    )


def _rows(
    source: str, split: Literal["train", "evaluation"], *, seed: int, rows_max: int | None = None
) -> Iterable[sources.Row]:
    """Some rows of a source: of a dataset's folder as they stand there, so that memory stays small."""
    path = Path(source)
    if path.is_dir():
        if not (path / f"{split}.parquet").is_file():
            return []
        return islice(parquet.rows(path, split), min(rows_max or _ROWS_LOOKED_AT, _ROWS_LOOKED_AT))
    return sources.read(source, rows_max=rows_max, seed=seed, split=split)[:_ROWS_LOOKED_AT]


def _whole(row: sources.Row) -> tuple[str, ...]:
    """Question and answer, whatever was thought of it; nothing where a row holds tokens alone."""
    turns, lead, answer = recital.said({name: value for name, value in row.items() if name != "label"})
    return recital.normal(" \n ".join([*(content for _, content in turns), lead, answer]))


def _known(path: Path) -> Probes | None:
    return Probes.from_document(orjson.loads(path.read_bytes())) if path.is_file() else None
