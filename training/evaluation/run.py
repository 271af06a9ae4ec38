"""One evaluation, from the plan to the numbers: read rows, ask every subject, ask the judge, compare."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import httpx

from training.evaluation import crew, judging
from training.evaluation.ask import Asker, Unasked
from training.evaluation.compare import Sureness, compared
from training.evaluation.errors import BadPlan, EngineAway, JudgeAway
from training.evaluation.kept import Kept
from training.evaluation.measures import catalogue
from training.evaluation.progress import Asking, Noted, Progress
from training.evaluation.rows import Reply, Row, Tokens
from training.evaluation.suites import sources
from training.evaluation.values import Asked, Evaluation, Measured, Plan, Subject, Suite, digest

_SAID_EVERY = 20
#: Of a judge's verdicts; models that judge badly forget the form now and then.
_VERDICTS_MIN = 0.5
_JUDGED = frozenset({"held", "task"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """How endpoints are reached where not over the network; for tests."""

    engine: httpx.AsyncBaseTransport | None = None
    judge: httpx.AsyncBaseTransport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A suite, and what every subject made of its rows."""

    asked: Asked
    rows: Sequence[Row]
    replies: Mapping[Subject, Sequence[Reply]]
    left: Mapping[str, int]


def questions(plan: Plan) -> dict[str, list[Row]]:
    """The rows of every suite by its name. Raises BadPlan, BadSuite."""
    own = {check.name for asked in plan.suites for check in asked.checks}
    unknown = {name for asked in plan.suites for name in asked.measures} - catalogue.known() - own
    if unknown:
        raise BadPlan(
            [f"no measure is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(catalogue.known()))}"]
        )
    return {asked.name: sources.load(asked, seed=plan.seed) for asked in plan.suites}


def name_of(plan: Plan, rows: Mapping[str, Sequence[Row]]) -> str:
    """The evaluation's digest: over the plan and everything that is asked."""
    return digest([plan.identity(), {name: _digest(each) for name, each in rows.items()}])


async def evaluate(
    plan: Plan, progress: Progress, *, kept: Kept | None = None, wires: Wires = Wires()
) -> tuple[Evaluation, list[Answered]]:
    """Ask everything, and measure. Raises EvaluationError."""
    began = time.monotonic()
    rows = questions(plan)
    kept = kept or Kept()
    warnings: list[str] = []
    async with Asker("engine", plan.engine, kept, transport=wires.engine) as engine:
        await _present(plan, engine)
        answered = [await _suite(plan, engine, asked, rows[asked.name], progress) for asked in plan.suites]
    warnings += _missed(plan, answered)
    if plan.judge is not None:
        async with Asker("judge", plan.judge, kept, transport=wires.judge) as judge:
            answered = [await _judged(plan, judge, each, progress, warnings) for each in answered]
    sure = Sureness(level=plan.level, resamples=plan.resamples, seed=plan.seed)
    measured: list[Measured] = []
    for each in answered:
        measured += compared(each.asked, each.rows, each.replies, sure)
    for text in warnings:
        progress.said(Noted(text=text))
    done = Evaluation(
        digest=name_of(plan, rows),
        models=_models(plan),
        suites=tuple(_told(each) for each in answered),
        measured=tuple(measured),
        level=plan.level,
        judge=plan.judge.model if plan.judge is not None else "",
        warnings=tuple(warnings),
        seconds=round(time.monotonic() - began, 3),
    )
    return done, answered


def _models(plan: Plan) -> dict[Subject, str]:
    found: dict[Subject, str] = {"candidate": plan.models.candidate, "base": plan.models.base}
    return {**found, "live": plan.models.live} if plan.models.live else found


async def _present(plan: Plan, engine: Asker) -> None:
    there = await engine.models()
    missing = [name for name in _models(plan).values() if name not in there]
    if missing:
        raise EngineAway(
            f"The engine at {plan.engine.url} does not hold {', '.join(missing)}; it holds {', '.join(sorted(there))}. "
            "Load what is missing, and evaluate again."
        )


async def _suite(plan: Plan, engine: Asker, asked: Asked, rows: Sequence[Row], progress: Progress) -> Answered:
    """The rows that can be asked, as tokens where their likelihood is asked for, and every subject's replies."""
    left: Counter[str] = Counter()
    likely, said = catalogue.of_likelihood(asked, rows)

    async def ready(row: Row) -> Row:
        found = await _tokens(engine, plan.models.base, row)
        if isinstance(found, Unasked):
            left[f"likelihood_{found.why}"] += 1
            return row
        return found

    if likely:
        prepared = await crew.each(ready, rows, at_once=plan.engine.at_once)
    else:
        prepared = [replace(row, scored=None, scored_other=None) for row in rows]
    replies: dict[Subject, Sequence[Reply]] = {}
    # One subject after the other: adapters share the engine's slots with everybody else's.
    for subject, model in _models(plan).items():
        done = 0

        async def reply(row: Row, *, subject: Subject = subject, model: str = model) -> Reply:
            nonlocal done
            found = await _reply(engine, model, row, plan.tokens_max if said else 0)
            done += 1
            if done % _SAID_EVERY == 0 or done == len(rows):
                progress.said(Asking(suite=asked.name, who=subject, done=done, of=len(rows)))
            return found

        replies[subject] = await crew.each(reply, prepared, at_once=plan.engine.at_once)
    return Answered(asked=asked, rows=prepared, replies=replies, left=left)


async def _tokens(engine: Asker, model: str, row: Row) -> Row | Unasked:
    """The row with the tokens whose likelihood is asked for. The base's tokenizer is everybody's."""
    scored, other = row.scored, row.scored_other
    wanted = [(scored, row.answer, row.text), (other, row.rejected, row.other)]
    found: list[Tokens | None] = []
    for given, answer, text in wanted:
        if given is not None:
            found.append(given)
        elif answer and row.prompt:
            made = await engine.tokens(model, row.prompt, answer)
            if isinstance(made, Unasked):
                return made
            found.append(made)
        elif text:
            made = await engine.text(model, text)
            if isinstance(made, Unasked):
                return made
            found.append(made)
        else:
            found.append(None)
    return replace(row, scored=found[0], scored_other=found[1])


async def _reply(engine: Asker, model: str, row: Row, tokens_max: int) -> Reply:
    """`tokens_max` 0: no answer is wanted."""
    reply = Reply()
    for tokens, is_wanted in ((row.scored, True), (row.scored_other, False)):
        if tokens is None:
            continue
        found = await engine.likelihood(model, tokens)
        if isinstance(found, Unasked):
            reply = replace(reply, failed=found.why)
        else:
            reply = replace(reply, wanted=found) if is_wanted else replace(reply, unwanted=found)
    if row.prompt and tokens_max:
        said = await engine.answer(model, row.prompt, tokens_max=tokens_max)
        if isinstance(said, Unasked):
            return replace(reply, failed=said.why)
        reply = replace(reply, text=said.text, tokens=said.tokens, cut=said.cut)
    if row.twin and tokens_max:
        said = await engine.answer(model, row.twin, tokens_max=tokens_max)
        reply = replace(reply, failed=said.why) if isinstance(said, Unasked) else replace(reply, twin=said.text)
    return reply


async def _judged(plan: Plan, judge: Asker, answered: Answered, progress: Progress, warnings: list[str]) -> Answered:
    """The candidate against the others, and everybody's ratings where a row carries a context."""
    assert plan.judge is not None
    judging_ = plan.judge
    if answered.asked.role not in _JUDGED:
        return answered
    replies = {subject: list(each) for subject, each in answered.replies.items()}
    asked = missed = 0

    async def look(at: int) -> None:
        nonlocal asked, missed
        row = answered.rows[at]
        ours = answered.replies["candidate"][at].text
        for subject, each in answered.replies.items():
            text = each[at].text
            if text is not None and row.context:
                found = await judging.rated(judge, judging_, row, text)
                asked, missed = asked + 1, missed + isinstance(found, Unasked)
                if not isinstance(found, Unasked):
                    replies[subject][at] = replace(replies[subject][at], ratings=found)
            if subject != "candidate" and text is not None and ours is not None:
                score = await judging.preferred(judge, judging_, row, ours, text)
                asked, missed = asked + (ours.strip() != text.strip()), missed + isinstance(score, Unasked)
                if not isinstance(score, Unasked):
                    candidate = replies["candidate"][at]
                    wins = {**candidate.wins, subject: score}
                    replies["candidate"][at] = replace(candidate, wins=wins)

    places = [at for at, row in enumerate(answered.rows) if row.prompt][: judging_.rows_max]
    await crew.each(look, places, at_once=judging_.at_once)
    progress.said(Asking(suite=answered.asked.name, who="judge", done=asked - missed, of=asked))
    if asked and missed > asked * (1 - _VERDICTS_MIN):
        raise JudgeAway(
            f"The judge {judging_.model} gave {asked - missed} verdicts of {asked} on {answered.asked.name}."
        )
    if missed:
        warnings.append(
            f"{answered.asked.name}: the judge gave no verdict {missed} times of {asked}; those are left out."
        )
    return replace(answered, replies=replies)


def _missed(plan: Plan, answered: Sequence[Answered]) -> list[str]:
    """Warnings of rows that had no answer. Raises EngineAway where they are too many for a verdict."""
    said = []
    for each in answered:
        for subject, replies in each.replies.items():
            why = Counter(reply.failed for reply in replies if reply.failed)
            if not why:
                continue
            told = ", ".join(f"{name} {count}" for name, count in sorted(why.items()))
            words = f"{each.asked.name}: {why.total()} of {len(replies)} rows had no whole answer of {subject} ({told})"
            if why["away"] > plan.unanswered_max * len(replies):
                raise EngineAway(f"{words}; more than {plan.unanswered_max:.0%} is no evaluation.")
            said.append(f"{words}; they are left out.")
        if each.left:
            told = ", ".join(f"{name} {count}" for name, count in sorted(each.left.items()))
            said.append(f"{each.asked.name}: of {len(each.rows)} rows some could not be weighed ({told}).")
    return said


def _told(each: Answered) -> Suite:
    failed = max((sum(bool(reply.failed) for reply in mine) for mine in each.replies.values()), default=0)
    return Suite(
        name=each.asked.name,
        source=each.asked.source,
        digest=_digest(each.rows),
        rows=len(each.rows),
        unanswered=failed,
        left=dict(each.left),
    )


def _digest(rows: Sequence[Row]) -> str:
    """Of what is asked; token ids follow from it."""
    return digest([replace(row, scored=None, scored_other=None).document() for row in rows])
