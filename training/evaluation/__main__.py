"""`python -m training.evaluation PLAN.json --out evaluation.json`: one evaluation as a process, events as JSON lines.

The plan may be `-`, for standard input: so no key stands in a file. Exit code 0 with a `finished` event, 1 with a
`failed` one. A run that was killed goes on where it stood, and one whose evaluation is there already says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import orjson
import typer

from training.errors import TrainingError
from training.evaluation.errors import BadEvaluation, BadPlan
from training.evaluation.kept import Kept
from training.evaluation.progress import Event, Failed, Finished, as_fields
from training.evaluation.run import Answered, evaluate, name_of, questions
from training.evaluation.values import Evaluation, Plan, load, read


@dataclass(frozen=True, slots=True)
class Lines:
    """Progress as lines of JSON."""

    out: TextIO

    def said(self, event: Event) -> None:
        """Write one line, at once."""
        self.out.write(json.dumps(as_fields(event)) + "\n")
        self.out.flush()


def main(
    plan: Annotated[str, typer.Argument(help="The plan as JSON, or - for standard input.")],
    out: Annotated[Path, typer.Option(help="Where the evaluation goes.")],
    answers: Annotated[Path | None, typer.Option(help="Also write every row with its answers, as JSON lines.")] = None,
) -> None:
    """Evaluate one version."""
    lines = Lines(sys.stdout)
    try:
        _run(_plan(plan), out, answers, lines)
    except (TrainingError, OSError) as error:
        code = error.code if isinstance(error, TrainingError) else "io_error"
        lines.said(Failed(code=code, message=str(error), retryable=getattr(error, "retryable", True)))
        sys.exit(1)


def _plan(source: str) -> Plan:
    try:
        return read(sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes())
    except FileNotFoundError as error:
        raise BadPlan([f"there is no file {source}"]) from error


def _run(plan: Plan, out: Path, answers: Path | None, lines: Lines) -> None:
    done = _there(out, plan) if answers is None else None
    if done is None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Kept(out.with_suffix(".part")) as kept:
            done, answered = asyncio.run(evaluate(plan, lines, kept=kept))
            if answers is not None:
                _write(answers, _told(answered))
            _write(out, done.dump())
    lines.said(Finished(file=str(out), digest=done.digest, measures=len(done.measured), seconds=done.seconds))


def _there(out: Path, plan: Plan) -> Evaluation | None:
    """The evaluation of just this plan and these rows, where it was made before."""
    try:
        done = load(out.read_bytes())
    except (FileNotFoundError, BadEvaluation):
        return None
    return done if done.digest == name_of(plan, questions(plan)) else None


def _told(answered: Sequence[Answered]) -> bytes:
    """Every row with what each subject said."""
    lines = []
    for each in answered:
        for at, row in enumerate(each.rows):
            said = {subject: replies[at].text for subject, replies in each.replies.items()}
            turns = [{"role": turn.role, "content": turn.content} for turn in row.prompt]
            lines.append(orjson.dumps({"id": row.id, "prompt": turns, "wanted": row.answer, "said": said}))
    return b"".join(line + b"\n" for line in lines)


def _write(path: Path, body: bytes) -> None:
    """Whole, or not at all."""
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_bytes(body)
    building.replace(path)


if __name__ == "__main__":
    typer.run(main)
