"""Every step of every verb of the registry is once the last thing that a process does, and once a step that fails."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.errors import Unavailable
from tests.faults.steps import VERBS, House, How

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in VERBS for how in ("dies", "fails")),
        *((name, "stays broken") for name in ("register", "gc")),  # a transaction has nothing to go on with
    ],
)
def test_whatever_step_is_the_last_the_state_is_legal_and_the_verb_can_be_completed(
    name: str, how: How, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "tests.faults.steps", name, how, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_disk_that_is_full_refuses_the_adapter_and_keeps_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    adapter = house.adapter(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(Unavailable, match="artifact store could not copy"):
            house.registry.register(adapter, name="support", who="ann")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    house.is_legal()
    assert list(house.artifacts.root.iterdir()) == []
    house.registry.register(adapter, name="support", who="ann")
    house.engine.dispose()
