"""How the processes of `make test` share the tests: what goes together, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: Long cases that share nothing: each goes to whoever is free. Of every other file the tests stay together, in one
#: process, since they share its fixtures.
APART = {
    f"integration/training/{name}.py" for name in ("test_recipes", "test_row_weights", "test_exporting", "test_convert")
} | {"faults/test_every_step.py", "integration/test_reshaping.py"}
#: Fixtures of the session that are several processes, and idle until its end. The tests that use one of them go
#: together, before all others; those of the second and third need vLLM.
HOMES = ("house", "installation", "vllm_engine")
#: In this order, so that what is long does not begin when all else has ended; what stands nowhere here comes last.
TURNS = ("integration/training/", "integration/", "e2e/", "faults/", "contracts/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if home(item) or place(item) not in APART:
            item.add_marker(pytest.mark.xdist_group(home(item) or place(item)))
    items.sort(key=lambda item: (not home(item), turn(item)))


def home(item: pytest.Item) -> str:
    """The fixture among `HOMES` that it uses, if its file has no other of that name in its place."""
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    for name in HOMES:
        if name in known and known[name][-1].scope == "session":
            return name
    return HOMES[-1] if item.get_closest_marker("vllm") else ""  # some ask for the engine by a parameter


def place(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).as_posix()


def turn(item: pytest.Item) -> int:
    return next((at for at, start in enumerate(TURNS) if place(item).startswith(start)), len(TURNS))
