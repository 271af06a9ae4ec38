"""The command line imports the verb that it is asked for, and all of them only to list them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli import GROUPS, VERBS, app, with_verbs

FIRST = ("up", "serve", "work", "config")


def imported(*words: str) -> set[str]:
    """The modules of verbs that are there once `graftline WORDS` knows what it was asked."""
    script = "import sys; from gateway import cli; cli.with_verbs(cli.app, sys.argv[1:])\n"
    script += "print(*(name for name in sys.modules if name.startswith('gateway.verbs.')))"
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("words", [("keys", "list"), ("merge", "a", "b"), ("reduce",), ("serve", "--worker", "1")])
def test_a_verb_imports_itself_and_no_other(words: tuple[str, ...]) -> None:
    modules = {**{name: module for name, (module, _) in GROUPS.items()}, **VERBS}
    expected = {modules[words[0]]} if words[0] in modules else set()
    assert imported(*words) & set(modules.values()) == expected


@pytest.mark.parametrize("words", [(), ("--help",), ("no-such-verb",)])
def test_help_and_mistakes_know_them_all(words: tuple[str, ...]) -> None:
    whole = with_verbs(app_of_its_own(), words)
    said = CliRunner().invoke(whole, ["--help"], env={"COLUMNS": "200"}).output
    assert all(name in said for name in (*FIRST, *GROUPS, *VERBS))


def app_of_its_own() -> typer.Typer:
    own = typer.Typer(no_args_is_help=True, add_completion=False)
    own.registered_commands = list(app.registered_commands)
    return own
