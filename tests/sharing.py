"""How the processes of `make test` share the tests that need no vLLM: what goes together, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: Long cases that share nothing: each goes to whoever is free. Of every other file the tests stay together, in one
#: process, since they share its fixtures.
APART = {
    f"integration/training/{name}.py" for name in ("test_recipes", "test_row_weights", "test_exporting", "test_convert")
} | {"faults/test_every_step.py", "integration/test_reshaping.py"}
#: The fixture of the gateway, engine and worker that many tests share. They go together, first of all, for each process
#: that asks for it starts three others, which idle until its end.
HOUSE = "house"
#: In this order, so that what is long does not begin when all else has ended; what stands nowhere here comes last.
TURNS = ("integration/training/", "integration/", "e2e/", "faults/", "contracts/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if at_home(item) or place(item) not in APART:
            item.add_marker(pytest.mark.xdist_group(HOUSE if at_home(item) else place(item)))
    items.sort(key=lambda item: (not at_home(item), turn(item)))


def at_home(item: pytest.Item) -> bool:
    """Whether it uses the session's house, and none that its file has in its place."""
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.get(HOUSE, ())  # noqa: B009
    return bool(fixtures) and fixtures[-1].scope == "session"


def place(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).as_posix()


def turn(item: pytest.Item) -> int:
    return next((at for at, start in enumerate(TURNS) if place(item).startswith(start)), len(TURNS))
