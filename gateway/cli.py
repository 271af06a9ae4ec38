"""`graftline`: parse, read the settings, call the function that the HTTP route calls, exit with a code."""

from __future__ import annotations

import logging
import os
import sys
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
from gateway.verbs import (
    adapters,
    approvals,
    convert,
    datasets,
    doctor,
    evaluate,
    experiments,
    feedback,
    gc,
    jobs,
    keys,
    merge,
    quantize,
    reference,
    review,
    train,
    tune,
)
from gateway.verbs.console import say
from monitoring.records.errors import RecordsError
from training.errors import TrainingError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(adapters.app, name="adapters", help="Register, list, promote, roll back and retire adapters.")
app.add_typer(experiments.app, name="experiments", help="Test adapters against each other on live traffic.")
app.add_typer(approvals.app, name="approvals", help="Answer what experiments may not decide alone.")
app.add_typer(keys.app, name="keys", help="Make, list and revoke API keys.")
app.add_typer(review.app, name="review", help="Look at answers again: pick, label, compare, agree.")
app.add_typer(feedback.app, name="feedback", help="Say what answers were worth, and show what was said.")
app.add_typer(datasets.app, name="datasets", help="Build, import and show datasets.")
app.add_typer(jobs.app, name="jobs", help="Follow, pause, resume and cancel fine-tuning jobs.")
app.command("gc")(gc.gc)
app.command("quantize")(quantize.quantize)
app.command("convert")(convert.convert)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("tune")(tune.tune)
app.command("merge")(merge.merge)
app.command("reduce")(merge.reduce)
app.command("export-model")(merge.export_model)
app.command("doctor")(doctor.doctor)
app.command("reference")(reference.reference)

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


@app.command()
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


@app.command()
def serve(worker: Annotated[int, typer.Option(help="This process's number among `workers`.")] = 0) -> None:
    """Run one gateway process."""
    from gateway.processes import configure_logs
    from gateway.processes import serve as run

    configure_logs()
    run(load(os.environ), worker=worker)


@app.command()
def work() -> None:
    """Run the worker: loads adapters into engines, moves records into the store."""
    from gateway.processes import configure_logs, run_worker

    configure_logs()
    run_worker(load(os.environ))


@app.command()
def config() -> None:
    """Print every setting with its value and what it means."""
    from gateway.verbs.console import settings_table

    settings_table(load(os.environ))


def main() -> None:
    """Entry point: foreseen errors become one clear message and exit code 1."""
    try:
        code = app(standalone_mode=False)  # an `Exit` comes back as its code
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
