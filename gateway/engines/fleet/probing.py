"""First forwards of new versions, off every engine that serves: one after the other, beside all other work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from adapters.checks.parity import labels
from adapters.checks.probe import ProbeAway, Prober, Recorded
from adapters.errors import AdapterError, BadSignature, DigestMismatch, NotFound, Rejected
from adapters.intake import FORCED_NOOP
from adapters.lifecycle import State
from adapters.store import Version
from gateway.engines.fleet.book import WHO
from gateway.engines.fleet.means import Means
from gateway.engines.fleet.replica import BEAT_AGE_MAX_S

log = logging.getLogger("graftline.fleet")

AGAIN_S = 5.0


class Probing:
    """`step` takes the oldest version that waits; nothing happens without a prober."""

    def __init__(self, prober: Prober | None, means: Means, waiting: Callable[[], Sequence[Version]]) -> None:
        self._prober, self._means, self._waiting = prober, means, waiting
        self._away: dict[str, float] = {}  # version id → when to look at it again, whatever came of it
        self._told = False

    async def step(self) -> bool:
        """Probe one version; returns whether there was one."""
        metrics, now = self._means.metrics, self._means.clock()
        waiting = self._waiting()
        self._away = {each: until for each, until in self._away.items() if until > now}
        metrics.gauge("graftline_probes_waiting").set(len(waiting))
        ready = [version for version in waiting if version.id not in self._away]
        if not ready:
            return False
        if self._prober is None:
            # What its trainer recorded needs no first forward of ours.
            known = [await asyncio.to_thread(self._means.book.recorded, version) for version in ready]
            ready = [version for version, found in zip(ready, known, strict=True) if found is not None]
        if not ready:
            if not self._told:
                log.error("%d versions wait for a first forward, and this worker has no prober", len(waiting))
            self._told = True
            return False
        await self._probe(self._prober, min(ready, key=lambda version: (version.created_at, version.id)))
        return True

    async def _probe(self, prober: Prober | None, version: Version) -> None:
        means, book = self._means, self._means.book
        self._away[version.id] = means.clock() + AGAIN_S
        try:
            known = await asyncio.to_thread(book.recorded, version)
            if known is None and prober is not None:
                folder = await asyncio.to_thread(means.registry.verify, version.name, version.number)
                may = FORCED_NOOP in version.labels
                gently = await asyncio.to_thread(self._anybody)
                known = await prober.probe(folder, digest=version.digest, may_do_nothing=may, gently=gently)
                await asyncio.to_thread(book.record, version, known)
            if known is not None:
                await asyncio.to_thread(self._passed, version, known)
        except Rejected as error:
            await asyncio.to_thread(self._failed, version, error)
        except ProbeAway as error:
            log.warning("%s:%d could not be probed yet: %s", version.name, version.number, error)
        except (DigestMismatch, NotFound, BadSignature) as error:
            await asyncio.to_thread(book.damage, version, error)
            log.error("%s:%d could not be probed: %s", version.name, version.number, error)
        except (
            AdapterError
        ) as error:  # retired meanwhile, or the database is away: its files have nothing to do with it
            log.warning("%s:%d could not be probed: %s", version.name, version.number, error)

    def _anybody(self) -> bool:
        """Whether anybody is being served, maybe from the processors that a probe takes."""
        beats = self._means.fleet.beats(self._means.clock() - BEAT_AGE_MAX_S)
        return any(any(beat.by_replica.values()) for beat in beats)

    def _passed(self, version: Version, known: Recorded) -> None:
        self._means.book.mended(version)
        note = f"effect {known.effect:.3f} by {known.by} in {known.seconds:.2f} s"
        self._means.registry.probed(version, who=WHO, note=note, labels=labels(known))
        log.info("probed %s:%d: %s", version.name, version.number, note)

    def _failed(self, version: Version, error: Rejected) -> None:
        self._means.book.failed(version, "probe", error.reasons)
        if self._means.store.get(version.name, version.number).state is State.CHECKED:
            self._means.registry.rejected(version, error.reasons, who=WHO)
        log.warning("rejected %s:%d: %s", version.name, version.number, error.reasons[0])
