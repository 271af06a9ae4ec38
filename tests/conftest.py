"""What every test may use, and how processes share the tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.engines", "tests.installation", "tests.sharing"]

SHARED = Path(__file__).parent.parent.parent / "shared"


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: nothing need look through it again, least of all a fork."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public data and suites beside the project; its absence skips, except in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED} is missing, and in CI it must be there")
        pytest.skip("the shared folder of public data is not beside this checkout")
    return SHARED
