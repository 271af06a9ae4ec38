"""A fleet over engines that are not there and stores in memory, with a clock that a test moves."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.artifacts.local import Artifacts
from adapters.checks.probe import Recorded
from adapters.lifecycle import State
from adapters.registry import Registry, engine_name
from adapters.store import MemoryStore, Version
from adapters.values import Draft, Evidence
from gateway.engines.errors import EngineUnreachable
from gateway.engines.fleet import Fleet, Means, Terms
from gateway.engines.fleet.book import Book
from gateway.engines.fleet.patrol import Patrol
from gateway.engines.fleet.probing import Probing
from gateway.engines.fleet.staging import Staging
from gateway.engines.fleet.store import MemoryDuties
from gateway.engines.vllm import EngineInfo, Gauges, Probe
from gateway.routing.store import MemoryFleetStore
from monitoring.telemetry.shared import Metrics

PROMPTS = ((1, 2, 3), (4, 5, 6))
BASE = "base"


def said(model: str, prompt: Sequence[int] | str) -> tuple[float, ...]:
    """What a healthy engine gives for a prompt: it depends on the model's bytes only."""
    return tuple(-(zlib.crc32(f"{model}\0{token}".encode()) % 3000) / 1000 - 0.5 for token in prompt[1:])


def recording(name: str) -> Recorded:
    return Recorded(
        prompts=PROMPTS,
        logprobs=tuple(said(name, p) for p in PROMPTS),
        base_logprobs=tuple(said(BASE, p) for p in PROMPTS),
        effect=1.0,
        seconds=0.1,
        by="test",
    )


class Engine:
    """An engine as the fleet sees it; `fails` holds what its calls raise, by name, once each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started_at = 100.0
        self.held: set[str] = set()
        self.loaded: list[str] = []
        self.cached = self.cached_most = 0  # loads of one life
        self.fails: dict[str, Exception] = {}
        self.nan: set[str] = set()
        self.wrong: set[str] = set()  # models that answer otherwise than they should
        self.deadly: set[str] = set()  # names whose load kills it
        self.alive = True
        self.off = 0.0  # nats by which every adapter's answers are off, as another batch rounds
        self.wrong_in_prompts: set[str] = set()  # of those wrong: only where a prompt's logprobs are asked for
        self.lists = self.corrupted = 0

    def restart(self) -> None:
        self.started_at += 1000.0
        self.alive, self.cached, self.corrupted = True, 0, 0
        self.held.clear()
        self.nan.clear()
        self.wrong.clear()

    async def healthy(self) -> bool:
        self._here("healthy")
        return True

    async def adapters(self) -> frozenset[str]:
        self._here("adapters")
        self.lists += 1
        return frozenset(self.held)

    async def gauges(self) -> Gauges:
        self._here("gauges")
        return Gauges(
            started_at=self.started_at,
            running=0,
            waiting=0,
            kv_cache_used=0.0,
            prompt_tokens=0,
            generation_tokens=0,
            preemptions=0,
            corrupted=self.corrupted,
        )

    async def describe(self) -> EngineInfo:
        return EngineInfo(model=BASE, max_model_len=1024, version="0.32.0")

    async def load(self, name: str, path: str) -> float:
        self._here("load")
        if name in self.deadly:
            self.alive = False
            self._here("load")
        self.held.add(name)
        self.loaded.append(name)
        self.cached += 1
        self.cached_most = max(self.cached, self.cached_most)
        return 0.01

    async def unload(self, name: str) -> None:
        self.held.remove(name)

    async def probe(self, model: str, prompt: Sequence[int], *, tokens: int) -> Probe:
        self._here("probe")
        if model in self.nan:
            return Probe(finite=False)
        logprobs = said(model + "!" * (model in self.wrong), prompt)
        return Probe(finite=True, prompt_logprobs=tuple(value - self._off(model) for value in logprobs))

    async def weigh(self, model: str, prompt: Sequence[int], token: int) -> float:
        self._here("weigh")
        off = model in self.wrong and model not in self.wrong_in_prompts
        return said(model + "!" * off, (0, token))[0] - self._off(model)

    def _off(self, model: str) -> float:
        return 0.0 if model == BASE else self.off

    def _here(self, call: str) -> None:
        if error := self.fails.pop(call, None):
            raise error
        if not self.alive:
            raise EngineUnreachable("gone", engine=self.name)


class Prober:
    """Records what every engine will say; `refuses` holds what a probe raises, by digest."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.refuses: dict[str, Exception] = {}
        self.asked: list[str] = []

    async def probe(self, folder: Path, *, digest: str, may_do_nothing: bool = False, gently: bool = False) -> Recorded:
        self.asked.append(digest)
        if error := self.refuses.get(digest):
            raise error
        (version, *_) = self.yard.store.by_digest(digest)
        return recording(engine_name(version))

    async def close(self) -> None: ...


class Yard:
    """Two engines, `a` and `b`, and everything beside them."""

    def __init__(self, folder: Path, **terms: Any) -> None:
        self.now, self.folder = 10_000.0, folder
        self.store, self.rows = MemoryStore(clock=lambda: self.now), MemoryFleetStore()
        self.a, self.b = Engine("a"), Engine("b")
        self.artifacts = Artifacts(folder / "artifacts")
        base: Any = None
        self.registry = Registry(self.store, self.artifacts, base, "sha256:base", clock=lambda: self.now)
        self.metrics = Metrics(folder / "metrics", "t")
        self.duties = MemoryDuties()
        self.tainted: list[tuple[str, float, float, str]] = []
        self.asked_to_restart: list[tuple[str, float, str]] = []
        self.restartable = True
        self.terms = Terms(base_name=BASE, load_wait_s=0, **{"bound": 100, "headroom": 10, **terms})
        self.begin()

    def begin(self) -> None:
        """A worker starts: nothing is known but what rows and engines say."""
        self.means = Means(
            registry=self.registry,
            store=self.store,
            fleet=self.rows,
            duties=self.duties,
            book=Book(self.store, clock=lambda: self.now),
            staging=Staging(
                self.artifacts, folder=self.folder / "stage", memory=self.folder / "memory", bytes_max=1 << 20
            ),
            metrics=self.metrics,
            revision=lambda: self.store.revision * 1_000_000 + self.rows.revision,
            terms=self.terms,
            taint=lambda *what: self.tainted.append(what),
            restart=self._restart,
            clock=lambda: self.now,
        )
        engines: dict[str, Any] = {"a": self.a, "b": self.b}
        self.fleet = Fleet(engines, self.means, rest=0.0)
        for replica in self.fleet.replicas.values():
            replica.list_every_s, replica.list_share = 0.0, float("inf")  # however slow the machine is
        self.prober = Prober(self)
        self.probing = Probing(self.prober, self.means, lambda: self.fleet.view.waiting)
        self.patrol = Patrol(self.fleet, self.means)

    def registered(self, word: str, name: str = "support", *labels: str) -> Version:
        """A checked version with bytes of its own in the artifact store."""
        made = self.folder / "made" / word
        made.mkdir(parents=True, exist_ok=True)
        (made / "adapter_config.json").write_text("{}")
        (made / "adapter_model.safetensors").write_text(word)
        draft = Draft(
            name=name,
            digest=self.artifacts.add(made),
            created_by="t",
            base_digest="b",
            rank=4,
            alpha=8,
            bytes=1,
            coverage="",
            labels=labels,
        )
        version = self.store.insert(draft)
        return self.store.move(name, version.number, State.UPLOADED, State.CHECKED, who="t", why="")

    async def settle(self, passes: int = 4) -> None:
        """Probe and step until everything that can happen has happened."""
        for _ in range(passes):
            await self.fleet.step()
            while await self.probing.step():
                await self.fleet.look()
                self.now += 0.01

    async def verified(self, word: str, name: str = "support") -> Version:
        version = self.registered(word, name)
        await self.settle()
        assert self.state(version) is State.VERIFIED
        return self.store.get(version.name, version.number)

    def state(self, version: Version) -> State:
        return self.store.get(version.name, version.number).state

    def serving(self) -> dict[str, frozenset[str]]:
        return {name: names for name, names in self.rows.residents().items() if names}

    def seen(self, version: Version, kind: Any) -> tuple[Evidence, ...]:
        return self.store.evidence(version.name, version.number, kind)

    def codes(self, version: Version, kind: Any) -> list[str]:
        """The codes of what did not pass."""
        return [r["code"] for e in self.seen(version, kind) if not e.passed for r in e.body.get("reasons", [])]

    def _restart(self, replica: str, *, started_at: float, why: str) -> bool:
        if self.restartable:
            self.asked_to_restart.append((replica, started_at, why))
        return self.restartable
