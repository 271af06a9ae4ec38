"""What the fleet does about NaN: withdraws who gave it, marks what it may have touched, and has the engine recycled.

Poison that spread takes its engine out at once, whatever that costs. Where the engine says that each was contained
nothing else was touched: then every adapter that gave NaN did it itself, and the engine is recycled only when that
costs nobody anything, which on the only engine is never.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from adapters.errors import AdapterError
from adapters.store import Version
from gateway.engines.blame import blame
from gateway.engines.fleet.book import reason
from gateway.engines.fleet.means import Means, nobody
from gateway.engines.fleet.replica import Replica
from gateway.engines.fleet.view import View
from gateway.routing.store import Poison

log = logging.getLogger("graftline.fleet")

#: Answers of this long after the last report are marked as well: another gateway may not have told of its own yet.
_MARKED_S = 1.0


class Cure:
    def __init__(self, replicas: Mapping[str, Replica], means: Means) -> None:
        self._replicas, self._means = replicas, means
        self._spread: set[tuple[str, float]] = set()  # replica and its engine's start
        self._contained: set[tuple[str, float, str]] = set()  # the same, and a version's id or an engine-side name
        self._rolling: dict[str, float] = {}  # replicas to recycle when others carry their work, and which engine it is

    async def step(self, view: View) -> None:
        """Deal with what was reported of each engine since its start."""
        since = {}
        for name, replica in self._replicas.items():
            out = view.out.get(name)
            started_at = out.started_at if out is not None and out.started_at else replica.started_at
            if started_at and (name, started_at) not in self._spread:
                since[name] = started_at
        if since:
            poisons = await asyncio.to_thread(self._means.fleet.poisons, min(since.values()))
            for name, started_at in since.items():
                theirs = [p for p in poisons if p.replica == name and p.at >= started_at]
                await self._contain(self._replicas[name], [p for p in theirs if p.contained], started_at, view)
                if spread := [p for p in theirs if not p.contained]:
                    await self._recover(self._replicas[name], spread, started_at, view)
                    self._spread.add((name, started_at))
        await self._roll(view)

    async def _recover(self, replica: Replica, poisons: Sequence[Poison], started_at: float, view: View) -> None:
        """In an order in which a worker that dies between two steps does all of it again, which changes nothing."""
        means, verdict = self._means, blame(poisons, started_at)
        means.metrics.counter("graftline_tripwire_total", replica=replica.name, contained="no").add(1)
        who = verdict.withdraw or "nobody that can be told"
        if started_at == replica.started_at:
            await replica.take_out(f"nan: first from {who}", since=min(p.at for p in poisons))
        for name in verdict.suspects:
            if (suspect := view.names.get(name)) is not None:
                means.book.suspect(suspect)
        version = view.names.get(verdict.withdraw)
        if version is None:
            log.error("engine %s gave numbers that are none, first from %s", replica.name, who)
            return
        await self._withdraw(version, replica.name, contained=False)

    async def _contain(self, replica: Replica, poisons: Sequence[Poison], started_at: float, view: View) -> None:
        """No engine goes out here. Bytes that were registered anew after their NaN are judged by what they do since."""
        means = self._means
        if poisons and started_at == replica.started_at:
            self._rolling[replica.name] = started_at
        for name in dict.fromkeys(p.engine_name for p in poisons):
            version = view.names.get(name)
            mark = (replica.name, started_at, version.id if version else name)
            theirs = [p.at for p in poisons if p.engine_name == name and (not version or p.at >= version.created_at)]
            if not theirs or mark in self._contained:
                continue
            words = "engine %s gave numbers that are none, from %s; it has contained them and serves on"
            log.error(words, replica.name, name or "nobody that can be told")
            means.metrics.counter("graftline_tripwire_total", replica=replica.name, contained="yes").add(1)
            until, why = max(theirs) + _MARKED_S, f"contained: {name}"
            await asyncio.to_thread(means.taint, replica.name, min(theirs), until, why)
            if version is not None:
                await self._withdraw(version, replica.name, contained=True)
            self._contained |= {mark, (replica.name, started_at, name)}

    async def _withdraw(self, version: Version, replica: str, *, contained: bool) -> None:
        means, touched = self._means, ", contained: no other answer was touched" if contained else ""
        found = reason(
            "nan_at_runtime",
            f"logits that are not finite, on {replica}{touched}",
            field="tripwire",
            allowed="finite logits for every prompt",
            advice="It overflows on some prompts only. Train it again, with a lower rate or a bound on its norm.",
        )
        body = {"reasons": [found.document()], "contained": contained}
        await asyncio.to_thread(means.book.attest, version, "tripwire", passed=False, subject=replica, body=body)
        try:
            await asyncio.to_thread(means.registry.withdraw, version, [found], who="tripwire")
        except AdapterError as error:
            log.warning("%s:%d was not withdrawn: %s", version.name, version.number, error)
        else:
            log.error("withdrew %s:%d: its logits were not finite", version.name, version.number)

    async def _roll(self, view: View) -> None:
        """Recycle one engine that contained its poison, while others carry its work; never one that would stay out."""
        if view.out or self._means.restart is nobody:
            return
        for name, started_at in tuple(self._rolling.items()):
            replica = self._replicas[name]
            if replica.started_at != started_at:
                del self._rolling[name]
            elif replica.open and self._carried(replica, view):
                await replica.take_out("contained: its cache held numbers that are none")
                return

    def _carried(self, replica: Replica, view: View) -> bool:
        """Whether another replica that is up serves the base, and others everything that this one serves."""
        another = any(each.open and each.up for each in self._replicas.values() if each is not replica)
        if not another or replica.reported is None:
            return False
        return all(replica.served_elsewhere(replica.name, name) for name in replica.reported & view.names.keys())
