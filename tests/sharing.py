"""How the processes of `make test` share the tests: what goes together, in which order, and who stands back for whom.

A whole installation with real vLLM needs the machine: its engine stands back for every other session
(`CPU_ENGINE_YIELDS`) and starves beside a busy one. So its tests come late, wait until nobody works beside them but at
the lowest priority: the short tests, which wait for nothing and have no deadlines, fill what they leave.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from functools import cache
from pathlib import Path

import pytest

from training.share import yield_to_others

HERE = Path(__file__).parent
#: Long cases that share nothing: each goes to whoever is free.
APART = {
    f"integration/training/{name}.py" for name in ("test_recipes", "test_row_weights", "test_exporting", "test_convert")
} | {"faults/test_every_step.py", "integration/test_reshaping.py"}
ALONE = "alone"
#: In this order: what waits for an engine to start begins at once. What stands nowhere here comes last and stands back.
TURNS = ("engine", "integration/training/", "integration/", "e2e/", "faults/", "contracts/", "slow ", ALONE)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not shared_out(config):
        return
    for item in items:
        if name := group(item):
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=turn)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if not shared_out(item.config):
        return
    if turn(item) < len(TURNS):
        wait_for_turn(item.config, fcntl.LOCK_SH)
    else:
        stand_back()
        wait_for_turn(item.config, fcntl.LOCK_UN)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """An engine may start in company, and answers when it is alone."""
    if shared_out(item.config) and group(item) == ALONE:
        wait_for_turn(item.config, fcntl.LOCK_EX)


def shared_out(config: pytest.Config) -> bool:
    return bool(getattr(config.option, "loadgroup", False))


def group(item: pytest.Item) -> str:
    """Tests of a group run one after another in one process; a test without one runs anywhere.

    `engine` is what needs the one bare engine, or imports vLLM; `alone` a whole installation.
    """
    file = place(item)
    if item.get_closest_marker("vllm"):
        fixtures = getattr(item, "fixturenames", ())
        return ALONE if "installation" in fixtures or file.startswith(("e2e/", "docs/")) else "engine"
    if file in APART:
        return ""
    return f"slow {file}" if file.startswith("unit/") and item.get_closest_marker("slow") else file


def place(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).as_posix()


def turn(item: pytest.Item) -> int:
    name = group(item) or place(item)
    return next((at for at, start in enumerate(TURNS) if name.startswith(start)), len(TURNS))


def wait_for_turn(config: pytest.Config, how: int) -> None:
    """A lock that each process shares as long as it takes its whole part of the processors, and ends with it."""
    fcntl.flock(lock_in(Path(str(config.option.basetemp)).parent), how)


@cache
def lock_in(folder: Path) -> int:
    return os.open(folder / "busy", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)


@cache
def stand_back() -> None:
    """Into a session of our own, since processors are shared between sessions first, and behind all others."""
    with contextlib.suppress(PermissionError):  # we lead one already
        os.setsid()
    yield_to_others(os.getpid(), 19)
    os.nice(19)
