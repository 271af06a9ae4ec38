"""Tells somebody elsewhere that a decision waits for a person: one POST for each proposal, tried again until taken."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import httpx

from adapters.experiments.store import ExperimentStore
from adapters.experiments.values import Answer, Proposal
from gateway.api.control.experiments_documents import proposed
from monitoring.telemetry.shared import Metrics

log = logging.getLogger("graftline.experiments")

TIMEOUT_S = 10.0
_AGAIN_S, _AGAIN_MOST_S = 2.0, 300.0


class Webhook:
    """At least once: a worker that was restarted tells again of what still waits."""

    def __init__(
        self, url: str, store: ExperimentStore, metrics: Metrics, *, mono: Callable[[], float] = time.monotonic
    ) -> None:
        self._url, self._store, self._metrics, self._mono = url, store, metrics, mono
        self._told: set[str] = set()
        self._failed: dict[str, tuple[int, float]] = {}  # how often, and when it is tried again

    async def step(self) -> None:
        """Tell of every proposal that is pending and not told of."""
        standing = await asyncio.to_thread(self._store.proposals, open_only=True)
        pending = {each.id: each for each in standing if each.answer is Answer.PENDING}
        self._told &= pending.keys()
        self._failed = {id_: when for id_, when in self._failed.items() if id_ in pending}
        due = [each for id_, each in pending.items() if id_ not in self._told and self._due(id_)]
        if due:
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                for each in due:
                    await self._tell(client, each)

    def _due(self, id_: str) -> bool:
        return self._mono() >= self._failed.get(id_, (0, 0.0))[1]

    async def _tell(self, client: httpx.AsyncClient, proposal: Proposal) -> None:
        what = f"{proposal.verdict} {proposal.arm}".strip()
        text = f"Experiment {proposal.experiment} proposes to {what}: {'; '.join(proposal.reasons)}"
        try:
            answer = await client.post(self._url, json={**proposed(proposal), "text": text})
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            times = self._failed.get(proposal.id, (0, 0.0))[0] + 1
            self._failed[proposal.id] = (times, self._mono() + min(_AGAIN_S * 2**times, _AGAIN_MOST_S))
            self._metrics.counter("graftline_webhook_failures_total").add(1)
            if times == 1:
                log.warning("the webhook was not told of proposal %s: %s", proposal.id, type(problem).__name__)
            return
        self._told.add(proposal.id)
