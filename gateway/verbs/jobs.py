"""`graftline jobs`: list, show, events, logs, cancel, pause and resume, by the rows that the worker goes by."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from gateway.control import Control, open_control
from gateway.settings import Settings, load
from gateway.verbs.console import say, table, when
from gateway.verbs.jobs_watch import LOOK_EVERY_S, follow, line
from training.jobs import asking
from training.jobs.store import Jobs
from training.jobs.values import Job, JobState
from training.launchers.values import LOG

app = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_JOB = TypeAdapter(Job)
_BLOCK = 1 << 16


@app.command("list")
def list_jobs(
    state: Annotated[str, typer.Option(help=f"Only {', '.join(JobState)}.")] = "",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's; else all.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show jobs, the newest first."""
    if state and state not in frozenset(JobState):
        raise typer.BadParameter(f"found {state!r}; allowed: {', '.join(JobState)}")
    found = _jobs().list(tenant, limit=limit, state=JobState(state) if state else None)
    if as_json:
        say(json.dumps([_document(job) for job in found]))
        return
    rows = (
        (
            job.id,
            job.state,
            job.phase if job.state is JobState.RUNNING else "",
            _made(job),
            job.tenant,
            when(job.created_at),
        )
        for job in found
    )
    table("Jobs", ("id", "state", "phase", "version", "tenant", "asked for (UTC)"), rows)


@app.command()
def show(id_: Id, as_json: AsJson = False) -> None:
    """Tell where a job stands, and why."""
    job = _jobs().get(id_)
    if as_json:
        say(json.dumps(_document(job)))
        return
    say(f"{job.id}: {job.state}{f', {job.phase}' if job.state is JobState.RUNNING else ''}")
    say(
        f"  makes {_made(job)} by {job.recipe.get('method', 'auto')} from {job.recipe.get('data', {}).get('train', '')}"
    )
    say(f"  asked for by {job.owner or 'nobody'} of {job.tenant} at {when(job.created_at)} UTC")
    if job.started_at is not None:
        by = f" on {job.worker}" if job.worker else ""
        say(f"  begun at {when(job.started_at)}{by}, attempt {job.attempt}")
    if job.finish_at is not None:
        say(f"  its training should be done at {when(job.finish_at)}")
    if job.finished_at is not None:
        say(f"  ended at {when(job.finished_at)}")
    if job.error is not None:
        say(f"  {job.error.code}: {job.error.message}")
    say(f"  files: {_folder(id_)}")


@app.command()
def events(
    id_: Id,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what happened to a job, the oldest first."""
    jobs = _jobs()
    if following and not as_json:
        _ended(follow(jobs, id_))
        return
    after = ""
    while found := jobs.events(id_, after, 500, oldest_first=True):
        after = found[-1].id
        for event in found:
            said = {"id": event.id, "at": event.at, "level": event.level, "message": event.message}
            say(json.dumps({**said, "type": event.kind, "data": dict(event.data)}) if as_json else line(event))


@app.command()
def logs(
    id_: Id,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="The last so many lines.")] = 100,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
) -> None:
    """Show what a job's processes printed, here on the machine where they ran."""
    jobs, path = _jobs(), _folder(id_) / LOG
    jobs.get(id_)
    done = 0
    while True:
        over = jobs.get(id_).over
        if path.is_file():
            with path.open("rb") as file:
                file.seek(done)
                block = file.read(_BLOCK) if done else _last(file.read(), lines)
                done = file.tell()
            if block:
                typer.echo(block.decode(errors="replace"), nl=False)
                continue
        if over or not following:
            return
        time.sleep(LOOK_EVERY_S)


@app.command()
def cancel(id_: Id) -> None:
    """End a job for good. What it had published and was not let in is rejected."""
    _asked(asking.cancel, id_)


@app.command()
def pause(id_: Id) -> None:
    """Let a job wait: a training stops, and goes on from its last checkpoint when it is resumed."""
    _asked(asking.pause, id_)


@app.command()
def resume(id_: Id) -> None:
    """Let a paused job go on."""
    _asked(asking.resume, id_)


def _asked(ask: Callable[..., Job], id_: str) -> None:
    job = ask(_jobs(), id_, now=time.time())
    say(f"{job.id} is {job.state}")


def _ended(job: Job) -> None:
    """The exit code says how it ended."""
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(1)


def _jobs() -> Jobs:
    return _control().jobs


def _control() -> Control:
    return open_control(load(os.environ))


def _folder(id_: str) -> Path:
    settings: Settings = load(os.environ)
    return settings.runs / id_


def _made(job: Job) -> str:
    return f"{job.name}:{job.version}" if job.version is not None else job.name


def _document(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = _JOB.dump_python(job, mode="json")
    return found


def _last(text: bytes, lines: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-lines:])
