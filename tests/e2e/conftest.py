"""The gateway that most end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtests.stack import stack
from tests.e2e.houses import House, open_house


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
