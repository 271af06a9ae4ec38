"""Whoever should be told of a proposal is told once, and again until they listened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.experiments.values import Answer
from gateway.experimenting.webhook import Webhook
from monitoring.telemetry.render import render
from monitoring.telemetry.shared import Metrics
from tests.unit.gateway.experimenting.ear import Ear
from tests.unit.gateway.experimenting.hall import NOW, Hall, proposed


@pytest.fixture
def ear() -> Iterator[Ear]:
    found = Ear()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    found = Metrics(tmp_path, "worker")
    yield found
    found.close()


async def test_a_proposal_is_told_once(ear: Ear, metrics: Metrics) -> None:
    hall = Hall()
    proposal = proposed(hall, hall.open())
    hook = Webhook(ear.url, hall.experiments, metrics)
    await hook.step()
    await hook.step()
    (heard,) = ear.heard
    assert heard["id"] == proposal.id
    assert (heard["object"], heard["verdict"], heard["role"], heard["answer"]) == (
        "approval", "promote", "operator", "pending",
    )  # fmt: skip
    assert "proposes to promote new: better" in heard["text"]


async def test_it_is_tried_again_later_and_failures_are_counted(ear: Ear, metrics: Metrics, tmp_path: Path) -> None:
    hall, now = Hall(), [100.0]
    proposed(hall, hall.open())
    hook = Webhook(ear.url, hall.experiments, metrics, mono=lambda: now[0])
    ear.status = 500
    await hook.step()
    await hook.step()
    assert len(ear.heard) == 1, "not at once"
    ear.status = 302
    now[0] += 4
    await hook.step()
    ear.status = 200
    now[0] += 8
    await hook.step()
    now[0] += 1000
    await hook.step()
    assert len(ear.heard) == 3
    assert b"graftline_webhook_failures_total 2\n" in render(tmp_path)


async def test_what_was_answered_meanwhile_is_not_told(ear: Ear, metrics: Metrics) -> None:
    hall = Hall()
    proposal = proposed(hall, hall.open())
    hall.experiments.answer(proposal.id, Answer.REJECTED, who="bob", why="", now=NOW)
    await Webhook(ear.url, hall.experiments, metrics).step()
    assert ear.heard == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "no-url", "http://[", "ftp://x/"])
async def test_a_url_that_nobody_can_reach_only_counts(url: str, metrics: Metrics, tmp_path: Path) -> None:
    hall = Hall()
    proposed(hall, hall.open())
    await Webhook(url, hall.experiments, metrics).step()
    assert b"graftline_webhook_failures_total 1\n" in render(tmp_path)
