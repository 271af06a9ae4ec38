"""The gateway that most end-to-end tests share."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from loadtests.stack import Stack, stack
from tests.e2e.houses import House, open_house


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever fails here failed in another process: the report tells what each of them wrote last."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            running = value if isinstance(value, Stack) else getattr(value, "running", None)
            if isinstance(running, Stack) and running.home.is_dir():
                logs = sorted(running.home.glob("*.log"))
                report.sections += [(f"{log.name} ends", log.read_text(errors="replace")[-2000:]) for log in logs]
    return report


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One engine, one gateway, one worker, with times short enough to wait for."""
    folders = tmp_path_factory.mktemp("sources")
    settings = {
        "header_timeout_s": "1",
        "body_timeout_s": "1",
        "keep_alive_s": "0.6",
        "n_max": "4",
        "patrol_per_s": "0",  # its questions would be what an engine was asked last
        "media_hosts": "images.example",
        "source_folders": f"{folders},{tmp_path_factory.getbasetemp()}",
    }
    with stack(**settings) as running:
        yield open_house(running, engines=1)
