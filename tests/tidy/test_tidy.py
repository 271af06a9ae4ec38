"""The house rules that a linter does not know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("gateway", "training", "adapters", "monitoring", "loadtests")
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
LINES_MAX = 300
FUNCTION_LINES_MAX = 60
RECIPE_LINES_MAX = 150
BANNED_NAMES = {"utils", "common", "helpers", "base", "manager", "core"}
BANNED_SUFFIXES = ("Manager", "Processor", "Helper")
#: The three seams that may catch everything: the request edge, what keeps a loop running (two of them are threads),
#: the CLI's main.
BROAD = {
    "gateway/api/openai/endpoint.py",
    "gateway/capture/outbox.py",
    "gateway/cli.py",
    "gateway/loops.py",
    "gateway/routing/watcher.py",
}
#: The environment is read where a process begins.
ENVIRON = {
    "gateway/settings.py",
    "gateway/cli.py",
    "gateway/verbs/adapters.py",
    "gateway/verbs/adapters_arrive.py",
    "gateway/verbs/adapters_moves.py",
    "gateway/verbs/convert.py",
    "gateway/verbs/approvals.py",
    "gateway/verbs/experiments.py",
    "gateway/verbs/feedback.py",
    "gateway/verbs/keys.py",
    "gateway/verbs/merge.py",
    "gateway/verbs/doctor.py",
    "gateway/verbs/gc.py",
    "gateway/verbs/review_places.py",
    "gateway/verbs/datasets.py",
    "gateway/verbs/jobs.py",
    "gateway/verbs/train.py",
    "gateway/verbs/evaluate.py",
    "gateway/verbs/tune.py",
    "gateway/engines/conformance/__main__.py",
    "gateway/engines/process/alone.py",
    "training/recipes/bench/__main__.py",
}
TASKS = {
    "gateway/api/openai/exchange.py",
    "gateway/app.py",
    "gateway/engines/conformance/__main__.py",
    "gateway/engines/scripted/server.py",
    "gateway/engines/process/supervisor.py",
    "gateway/processes.py",
    "training/evaluation/crew.py",
}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_is_one_noun_and_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    assert path.stem not in BANNED_NAMES
    assert not UNFINISHED.search(text)
    if path.name == "__init__.py" and path.parent.parent != ROOT:
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring, "a room says what happens in it"
        assert len(docstring.splitlines()) <= 6


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_functions_are_short_and_names_say_something(path: Path) -> None:
    most = RECIPE_LINES_MAX if name(path).startswith("training/") else FUNCTION_LINES_MAX
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= most, f"{node.name} has {lines} lines"
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(BANNED_SUFFIXES), node.name


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_broad_handlers_stand_at_the_seams_only(path: Path) -> None:
    if name(path) in BROAD:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            reraises = any(isinstance(n, ast.Raise) for n in ast.walk(node))
            assert caught not in ("everything", "Exception", "BaseException") or reraises, f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_environment_is_read_at_the_door_only(path: Path) -> None:
    if name(path) in ENVIRON or name(path).startswith("loadtests/"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")), f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_tasks_are_started_where_somebody_waits_for_them(path: Path) -> None:
    if name(path) in TASKS:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future")), (
            f"line {node.lineno}"
        )


def imported() -> Iterator[str]:
    for path in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_stands_unused() -> None:
    known = set(imported())
    ways_in = (ROOT / "Makefile").read_text() + (ROOT / "pyproject.toml").read_text()
    for path in SOURCES:
        module = name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        if path.name in ("__init__.py", "__main__.py") or module in known or module in ways_in:
            continue
        mentioned = any(module in p.read_text() or path.name in p.read_text() for p in SOURCES if p != path)
        assert mentioned, f"{module} is imported by nobody and no way in"


def test_no_machine_is_named() -> None:
    words = re.compile("|".join(re.escape(f"{place}/") for place in (ROOT, Path.home())))
    for path in ROOT.rglob("*"):
        if path.suffix in (".py", ".md", ".toml", ".sh", ".json", ".yml", ".yaml") and not any(
            part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts
        ):
            if path == Path(__file__):
                continue
            found = words.search(path.read_text(errors="replace"))
            assert not found, f"{name(path)}: {found and found[0]}"
