"""The worker's part: every running experiment is looked at again and again, and what follows is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from adapters.experiments import runner
from adapters.experiments.errors import ExperimentConflict, ExperimentNotFound, ExperimentOver
from adapters.experiments.runner import Aliases
from adapters.experiments.store import ExperimentStore
from adapters.experiments.values import Experiment, Ruling, Stage, Verdict
from gateway.experimenting.flow import Flow
from gateway.experimenting.gauges import Gauges
from gateway.experimenting.tables import table
from monitoring.records.errors import StoreAway
from monitoring.records.store import Loop

log = logging.getLogger("graftline.experiments")

#: An experiment rests so many times as long as its look took: a million units cost a tenth of a core at most.
REST = 9.0
#: Each look is a row that is kept. What has been in one step of its ramp for long is looked at less often: a harm is
#: then seen later by a two-thousandth of that time, and by a minute at most.
_PATIENT, _PATIENT_MOST_S = 2000.0, 60.0
#: A look that takes longer is told of. It goes on, and holds up no other.
SLOW_S = 60.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    after: Experiment
    ruling: Ruling
    broken: Sequence[str]
    took_s: float


class Looks:
    """Experiments are looked at beside each other, each in a thread and each by one thread at a time."""

    def __init__(
        self,
        store: ExperimentStore,
        registry: Aliases,
        records: Loop,
        flow: Flow,
        gauges: Gauges,
        *,
        patience_s: float,
        rest: float = REST,
        clock: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience_s` is how long a step waits for the looks that it began."""
        self._store, self._registry, self._records = store, registry, records
        self._flow, self._gauges = flow, gauges
        self._patience_s, self._rest = patience_s, rest
        self._clock, self._mono = clock, mono
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look")
        self._going: dict[str, tuple[asyncio.Future[_Looked | None], float]] = {}
        self._due: dict[str, float] = {}

    async def step(self) -> None:
        """Look at each one that is due. Raises the first thing that went wrong, after all others had their turn."""
        active = await asyncio.to_thread(self._store.list, active=True)
        broken = await asyncio.to_thread(self._flow.broken, [each.id for each in active])
        self._gauges.keep({f"{each.name}@{each.alias}" for each in active})
        self._due = {each.id: self._due.get(each.id, 0.0) for each in active}
        loop, now = asyncio.get_running_loop(), self._mono()
        for each in active:
            if each.id not in self._going and now >= self._due[each.id]:
                looking = loop.run_in_executor(self._threads, self._look, each, broken[each.id])
                self._going[each.id] = (looking, now)
        if self._going:
            await asyncio.wait([looking for looking, _ in self._going.values()], timeout=self._patience_s)
        problems = [problem for id_ in list(self._going) if (problem := self._ended(id_))]
        if problems:
            raise problems[0]

    def close(self) -> None:
        """Begin no look any more; one that is going on ends as it would have, or is taken up by another worker."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ended(self, id_: str) -> BaseException | None:
        """Take in a look that has ended; what went wrong with it, or that it takes too long."""
        looking, began = self._going[id_]
        if not looking.done():
            slow = self._mono() - began > SLOW_S
            return TimeoutError(f"the look at {id_} takes more than {SLOW_S:g} s") if slow else None
        del self._going[id_]
        if looking.cancelled() or (problem := looking.exception()):
            return None if looking.cancelled() else problem
        if (done := looking.result()) is not None:
            self._due[id_] = self._mono() + self._rests(done)
            self._gauges.told(done.after, done.ruling, done.broken)
            if done.ruling.verdict not in (Verdict.HOLD, Verdict.OPEN):
                said = "; ".join(done.ruling.reasons)
                log.info("%s on %s@%s: %s: %s", id_, done.after.name, done.after.alias, done.ruling.verdict, said)
        return None

    def _rests(self, done: _Looked) -> float:
        if done.after.stage is Stage.PROMOTING:
            return 0.0
        lasted = self._clock() - done.after.step_since
        return max(self._rest * done.took_s, min(lasted / _PATIENT, _PATIENT_MOST_S))

    def _look(self, experiment: Experiment, broken: Sequence[str]) -> _Looked | None:
        """One look, in a thread. None where somebody else moved the experiment meanwhile: look again next time."""
        began, columns = self._mono(), None
        if experiment.stage is not Stage.PROMOTING:  # decided already: only the alias is still to be moved
            try:
                columns = table(experiment, self._records.trial(experiment.id))
            except StoreAway as away:
                broken = (*broken, str(away))
        try:
            ruling = runner.step(
                experiment.id,
                columns,
                now=self._clock(),
                store=self._store,
                registry=self._registry,
                broken=broken,
            )
            after = self._store.get(experiment.id)
        except (ExperimentConflict, ExperimentOver, ExperimentNotFound):
            return None
        return _Looked(after=after, ruling=ruling, broken=broken, took_s=self._mono() - began)
