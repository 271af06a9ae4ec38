"""`graftline`: parse, read the settings, call the function that the HTTP route calls, exit with a code."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from adapters.errors import AdapterError
from gateway.access.errors import AccessError
from gateway.engines.errors import EngineError
from gateway.engines.process.devices import NoDevice
from gateway.engines.process.flags import RefusedFlags
from gateway.engines.process.launch import BadLaunch
from gateway.engines.process.supervisor import ChildFailed
from gateway.errors import GatewayError
from gateway.settings import PREFIX, SettingsError, load
from gateway.verbs.console import say
from monitoring.records.errors import RecordsError
from training.errors import TrainingError

#: Groups of verbs: where each is, as `app`, and what `--help` says of it.
GROUPS = {
    "adapters": ("gateway.verbs.adapters", "Register, list, promote, roll back and retire adapters."),
    "experiments": ("gateway.verbs.experiments", "Test adapters against each other on live traffic."),
    "approvals": ("gateway.verbs.approvals", "Answer what experiments may not decide alone."),
    "keys": ("gateway.verbs.keys", "Make, list and revoke API keys."),
    "review": ("gateway.verbs.review", "Look at answers again: pick, label, compare, agree."),
    "feedback": ("gateway.verbs.feedback", "Say what answers were worth, and show what was said."),
    "datasets": ("gateway.verbs.datasets", "Build, import and show datasets."),
    "jobs": ("gateway.verbs.jobs", "Follow, pause, resume and cancel fine-tuning jobs."),
}
#: Verbs by themselves: where each is, as a function of its name.
VERBS = {
    "gc": "gateway.verbs.gc",
    "quantize": "gateway.verbs.quantize",
    "convert": "gateway.verbs.convert",
    "train": "gateway.verbs.train",
    "evaluate": "gateway.verbs.evaluate",
    "tune": "gateway.verbs.tune",
    "merge": "gateway.verbs.merge",
    "reduce": "gateway.verbs.merge",
    "export-model": "gateway.verbs.merge",
    "doctor": "gateway.verbs.doctor",
    "reference": "gateway.verbs.reference",
}

FORESEEN = (
    AdapterError,
    AccessError,
    BadLaunch,
    ChildFailed,
    EngineError,
    GatewayError,
    NoDevice,
    RecordsError,
    RefusedFlags,
    SettingsError,
    TrainingError,
)


def with_verbs(app: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """Add the verb that `words` begin with, or all where they name none: to import all of them takes two seconds."""
    named = next((word for word in words if not word.startswith("-")), "")
    ours = {command.name for command in app.registered_commands}
    wanted = {named} if named in {*GROUPS, *VERBS, *ours} else {*GROUPS, *VERBS}
    for name, module in VERBS.items():
        if name in wanted:
            app.command(name)(getattr(importlib.import_module(module), name.replace("-", "_")))
    for name, (module, said) in GROUPS.items():
        if name in wanted:
            app.add_typer(importlib.import_module(module).app, name=name, help=said)
    return app


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("up")
def up(
    base: Annotated[str, typer.Option(help="The base: tidewell, a folder, or a hub id.")] = "",
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run the engine, the worker and the gateway on this machine, in the foreground."""
    from gateway.processes import configure_logs
    from gateway.processes import up as run

    environ = dict(os.environ)
    if base:
        environ[PREFIX + "BASE"] = base
    if port is not None:
        environ[PREFIX + "PORT"] = str(port)
    configure_logs(logging.WARNING)
    run(load(environ), environ, say)


@app.command("serve")
def serve(worker: Annotated[int, typer.Option(help="This process's number among `workers`.")] = 0) -> None:
    """Run one gateway process."""
    from gateway.processes import configure_logs
    from gateway.processes import serve as run

    configure_logs()
    run(load(os.environ), worker=worker)


@app.command("work")
def work() -> None:
    """Run the worker: loads adapters into engines, moves records into the store."""
    from gateway.processes import configure_logs, run_worker

    configure_logs()
    run_worker(load(os.environ))


@app.command("config")
def config() -> None:
    """Print every setting with its value and what it means."""
    from gateway.verbs.console import settings_table

    settings_table(load(os.environ))


def main() -> None:
    """Entry point: foreseen errors become one clear message and exit code 1."""
    try:
        code = with_verbs(app, sys.argv[1:])(standalone_mode=False)  # an `Exit` comes back as its code
    except FORESEEN as error:
        say(f"error ({error.code}) {error}")
        sys.exit(1)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:  # the CLI's main: one of the three places that may catch everything
        if hasattr(error, "show"):  # click's own: a wrong option or argument
            error.show()
            sys.exit(getattr(error, "exit_code", 2))
        logging.getLogger("graftline").exception("unforeseen")
        sys.exit(70)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
