"""A replica's loads, one at a time: staged outside the engine, timed to quiet moments, counted, proved.

Verified versions that an engine like this one certified serve again as soon as they are loaded after a restart, and the
patrol asks each of them afterwards: proving a thousand first would take longer than their loads. What has no such
certificate is certified before it serves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from adapters.checks.parity import Certificate
from adapters.errors import AdapterError, BadSignature, DigestMismatch, NotFound, Reason
from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.store import Version
from gateway.engines.errors import EngineError, EngineRefused
from gateway.engines.fleet.book import STRIKES_MAX, WHO, reason
from gateway.engines.fleet.full import Full
from gateway.engines.fleet.prove import certify_base, fault, finite, prove
from gateway.engines.fleet.staging import Staged, staged_ahead
from gateway.engines.fleet.view import View
from gateway.loops import abreast

if TYPE_CHECKING:
    from gateway.engines.fleet.replica import Replica

_Coming = tuple[Version, Staged | AdapterError]

log = logging.getLogger("graftline.fleet")

#: Each report has every gateway read its snapshot anew, which costs a core more than a load does.
REPORT_EVERY_S, REPORT_WHEN_MANY_S, MANY = 0.2, 1.0, 100
SLICE_S = 5.0
#: Loads on their way at once to a replica that fills again. Of a load's 8 ms the engine reads for 4.
ABREAST = 3
REFUSED_AGAIN_S = 60.0
#: The same bytes on the same engine differ again, and each load takes a place until its restart.
DIFFERS_AGAIN_S = 3600.0
DAMAGED_AGAIN_S = 15.0
#: A moment is quiet when gateways have at most so many requests here.
QUIET_MAX = 2
_QUIET_EVERY_S = 0.05


class Loading:
    def __init__(self, replica: Replica) -> None:
        self._replica, self._means = replica, replica.means
        self.struck: set[str] = set()  # engine-side names over which an engine died: last in every order
        self._differed: dict[str, set[float]] = {}  # engine-side name → the engines, by their start, where it did
        self.full = Full(replica)

    async def run(self, view: View, versions: Sequence[Version]) -> int:
        """Load and prove in this order, for a few seconds at most; returns how many were loaded."""
        replica = self._replica
        there = [v for v in versions if engine_name(v) in replica.have]
        await self._trust(versions)
        for version in there:
            if engine_name(version) not in replica.proven:
                await self._prove(version)
        missing = [v for v in versions if engine_name(v) not in replica.have]
        missing.sort(key=lambda v: engine_name(v) in self.struck)
        fits = missing[: replica.room]
        done = await self._load(view, fits) if fits else 0
        if not replica.room:
            await self.full.step(view, missing[len(fits) :])
        return done

    async def fetch(self, version: Version) -> bool:
        """Have one version on the engine, whatever else waits."""
        if engine_name(version) in self._replica.have:
            return True
        if not self._replica.room:
            return False
        await self._replica.note_loads(self._replica.loads + 1)
        (staged,) = await asyncio.to_thread(self._means.staging.stage_all, [version.digest])
        try:
            return await self._take(version, staged)
        finally:
            await asyncio.to_thread(self._means.staging.settle, [staged])

    async def ahead(self, view: View, versions: Sequence[Version]) -> None:
        """Load what an engine like this one certified, while the replica is asked whether it may open."""
        replica = self._replica
        await self._trust(versions)
        names = replica.proven - replica.have - replica.failing.keys() - self.struck
        if fits := [v for v in versions if engine_name(v) in names][: replica.room]:
            await self._load(view, fits)

    async def _load(self, view: View, versions: Sequence[Version]) -> int:
        replica, before = self._replica, self._replica.loads
        await replica.note_loads(before + len(versions))
        began = reported = time.monotonic()
        often_s = REPORT_WHEN_MANY_S if len(versions) >= MANY else REPORT_EVERY_S
        try:
            async with aclosing(staged_ahead(self._means.staging, versions)) as parts:
                async for part in parts:
                    for some in [part] if self._served_before(part) else [[each] for each in part]:
                        await self._take_all(some)
                        if replica.open and time.monotonic() - reported > often_s:
                            await replica.report(view)
                            reported = time.monotonic()
                    if time.monotonic() - began > SLICE_S or not (replica.open or replica.opening.asking):
                        break  # the next pass goes on, and sees what people moved meanwhile
        finally:
            await replica.note_loads(replica.loads)
        return replica.loads - before

    def _served_before(self, part: Sequence[_Coming]) -> bool:
        """Whether a replica that fills again is given what an engine like it certified, and none died over."""
        trusted = self._replica.proven - self.struck
        return self._replica.restoring and all(engine_name(v) in trusted for v, _ in part)

    async def _take_all(self, some: Sequence[_Coming]) -> None:
        """Load these, a few on their way at once: the engine is told of the next while it reads. One alone is proved,
        and what kills the engine is known then. Raises EngineError when the engine broke off."""
        if len(some) > 1:
            await abreast([partial(self._take, version, staged, alone=False) for version, staged in some], ABREAST)
        elif await self._take(*some[0]):
            await self._prove(some[0][0])

    async def _take(self, version: Version, staged: Staged | AdapterError, *, alone: bool = True) -> bool:
        """One load. Raises EngineError when the engine broke off."""
        replica, metrics = self._replica, self._means.metrics
        name = engine_name(version)
        if isinstance(staged, AdapterError):
            await self._damaged(version, staged)
            return False
        self._means.book.mended(version)
        if not replica.restoring:
            await self._quiet()
        replica.on_duty()
        try:
            seconds = await replica.engine.load(name, staged.path)
        except EngineRefused as error:
            if error.status < 500 or await self._lives():
                await self._refused(version, error)
                return False
            await self._strike(version, "load", error, alone=alone)
            raise
        except EngineError as error:
            if not await self._lives():
                await self._strike(version, "load", error, alone=alone)
            raise
        replica.loads += 1
        replica.have.add(name)
        if alone:
            metrics.histogram("graftline_adapter_load_stall_seconds", replica=replica.name).observe(seconds)
        metrics.histogram("graftline_adapter_load_seconds", replica=replica.name).observe(seconds + staged.seconds)
        return True

    async def _quiet(self) -> None:
        """Wait a little for a moment with few requests, for the engine stands still while it loads; never for ever."""
        until = time.monotonic() + self._means.terms.load_wait_s
        while time.monotonic() < until and await self._replica.inflight() > QUIET_MAX:  # noqa: ASYNC110
            await asyncio.sleep(_QUIET_EVERY_S)

    # proof

    async def _trust(self, versions: Sequence[Version]) -> None:
        """What an engine like this one certified serves again without a proof."""
        book, mark = self._means.book, self._replica.fingerprint
        verified = [v for v in versions if v.state is State.VERIFIED]
        found = await asyncio.to_thread(lambda: [engine_name(v) for v in verified if book.trusted(v, mark)])
        self._replica.proven.update(found)

    async def _prove(self, version: Version) -> None:
        """What it gives here is compared with what was recorded. Raises EngineError when the engine broke off."""
        replica, book, name = self._replica, self._means.book, engine_name(version)
        if name in replica.proven:
            return
        try:
            known = await asyncio.to_thread(book.recorded, version)
            fresh, found = await prove(
                replica.engine, name, self._means.terms.base_name, known, idle=not await replica.inflight()
            )
            if fresh is not None:
                await asyncio.to_thread(book.record, version, fresh, subject=replica.name)
        except EngineError as error:
            if not await self._lives():
                await self._strike(version, "probe", error)
            raise
        if found.passed:
            body = found.document()
            await asyncio.to_thread(book.certify, version, replica.fingerprint, subject=replica.name, body=body)
            replica.proven.add(name)
            self._differed.pop(name, None)
        else:
            await self.differs(version, found)

    async def differs(self, version: Version, found: Certificate) -> None:
        """A version is not served as it was recorded: the version goes, or the replica, or both. What differs on the
        next engine as well, which was asked before it served, is not the engine's fault any more."""
        replica, book, name = self._replica, self._means.book, engine_name(version)
        lives = self._differed.setdefault(name, set())
        lives.add(replica.started_at)
        base = await certify_base(
            replica.engine, self._means.terms.base_name, await asyncio.to_thread(book.recorded, version)
        )
        blamed = fault(
            is_finite=finite(found) and finite(base),
            known_here=len(lives) == 1 and book.certified(version, replica.fingerprint),
            base_passed=base.passed,
            engine_known=book.knows(replica.fingerprint),
            others_passed=replica.served_elsewhere(replica.name, name),
            contained=found.contained and finite(base),
        )
        replica.proven.discard(name)
        if not finite(found):
            replica.nan_at = self._means.clock()
        await asyncio.to_thread(book.failed, version, "parity", found.reasons, subject=replica.name)
        log.error("%s differs on engine %s, blamed: %s: %s", name, replica.name, blamed, found.reasons[0])
        if blamed in ("version", "both"):
            replica.failing[name] = self._means.clock() + DIFFERS_AGAIN_S
            if version.state is not State.VERIFIED or not finite(found):
                await self._end(version, found.reasons)
            if blamed == "version":
                await replica.engine.unload(name)
                replica.have.discard(name)
        if blamed in ("replica", "both"):
            book.suspect(version)
            word = "differs" if finite(found) else "nan"
            await replica.take_out(f"{word}: {version.name}:{version.number}: {found.reasons[0]}")

    @property
    def differed_most(self) -> int:
        """On how many engines, one after the other, a version differed that no engine here has answered for since."""
        return max(map(len, self._differed.values()), default=0)

    # what goes wrong

    async def _damaged(self, version: Version, error: AdapterError) -> None:
        """It could not be staged: it is tried again, and where its files are at fault that is told."""
        self._replica.failing[engine_name(version)] = self._means.clock() + DAMAGED_AGAIN_S
        if isinstance(error, DigestMismatch | NotFound | BadSignature):
            await asyncio.to_thread(self._means.book.damage, version, error, subject=self._replica.name)
        self._failure(error.code)
        log.error("%s:%d was not loaded on engine %s: %s", version.name, version.number, self._replica.name, error)
        if isinstance(error, BadSignature) and version.state is not State.VERIFIED:
            await self._end(version, [reason(error.code, str(error), field="signature")])

    async def _refused(self, version: Version, error: EngineRefused) -> None:
        self._replica.failing[engine_name(version)] = self._means.clock() + REFUSED_AGAIN_S
        found = reason(error.code, str(error), field="load", advice="Read the engine's words; train or export it anew.")
        await asyncio.to_thread(self._means.book.failed, version, "load", [found], subject=self._replica.name)
        self._failure(error.code)
        log.error("engine %s does not take %s:%d: %s", self._replica.name, version.name, version.number, error)
        if version.state is not State.VERIFIED and error.code != "adapter_path_not_found":
            await self._end(version, [found])

    async def _lives(self) -> bool:
        """Whether the engine survived, and is still the one that it was."""
        try:
            alive = await self._replica.engine.healthy()
            return alive and (await self._replica.engine.gauges()).started_at == self._replica.started_at
        except EngineError:
            return False

    async def _strike(self, version: Version, doing: str, error: EngineError, *, alone: bool = True) -> None:
        """The engine died over it: from now on it comes last and by itself, and after a second time by itself no
        more."""
        name, at = engine_name(version), self._replica.name
        self.struck.add(name)
        if not alone:
            log.error("engine %s died while it loaded %s:%d and another", at, version.name, version.number)
            return
        why = f"The engine died during its {doing}: {error}"
        count = await asyncio.to_thread(self._means.book.strike, version, subject=at, why=why)
        log.error("engine %s died over %s:%d (%d times now)", at, version.name, version.number, count)
        if count >= STRIKES_MAX:
            allowed, advice = "an engine that lives", "Look for what is odd about its shapes; export it anew."
            found = reason("crashes_engine", why, field=doing, allowed=allowed, advice=advice)
            await self._end(version, [found])

    async def _end(self, version: Version, reasons: Sequence[Reason]) -> None:
        """Rejected, or withdrawn where it was verified."""
        registry = self._means.registry
        end = registry.withdraw if version.state is State.VERIFIED else registry.rejected
        try:
            await asyncio.to_thread(end, version, reasons, who=WHO)
        except AdapterError as error:  # retired meanwhile, say: the next pass sees what it is now
            log.warning("%s:%d was not rejected: %s", version.name, version.number, error)
            return
        log.warning("rejected %s:%d: %s", version.name, version.number, reasons[0])

    def _failure(self, code: str) -> None:
        self._means.metrics.counter("graftline_adapter_load_failures_total", replica=self._replica.name, code=code).add(
            1
        )
