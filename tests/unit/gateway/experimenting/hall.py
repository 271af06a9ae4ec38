"""One adapter with three versions, its alias, and experiments on it, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.errors import Conflict, NotFound
from adapters.experiments.definition import Declared, Definition
from adapters.experiments.runner import WHO
from adapters.experiments.store import MemoryExperiments
from adapters.experiments.turns import Turn
from adapters.experiments.values import Arm, Experiment, Proposal, Ruling, Step, Verdict
from adapters.lifecycle import State
from adapters.names import ByNumber, parse
from adapters.values import Alias, Version
from gateway.experimenting.opening import open_experiment
from gateway.settings import Engine, Settings
from monitoring.records.events import Event, Exposure, Feedback, Inference, from_parts
from monitoring.records.store import MemoryRecords
from tests.unit.gateway.rows import alias, version

NOW = 1_800_000_000.0
UP = Declared(name="thumbs_up_rate", role="primary", window_s=1.0)
ERRORS = Declared(name="error_rate", role="guardrail", margin=0.3, window_s=1.0)


@dataclass
class Rows:
    """The adapters' store, as far as it is asked."""

    versions: dict[int, State] = field(default_factory=lambda: dict.fromkeys((1, 2, 3), State.VERIFIED))
    pinned: tuple[Alias, ...] = ()
    live: int | None = 1

    def get(self, name: str, number: int) -> Version:
        if number not in self.versions:
            raise NotFound(f"{name}:{number}")
        return version(number, self.versions[number], name=name)

    def aliases(self) -> tuple[Alias, ...]:
        return self.pinned

    def resolve_name(self, model: str) -> Version:
        found = parse(model)
        if isinstance(found, ByNumber):
            return self.get(found.name, found.number)
        if found.alias != "live" or self.live is None:
            raise NotFound(model)
        return self.get(found.name, self.live)

    def promote(self, name: str, number: int, *, alias: str, expected: int, who: str, why: str) -> Alias:
        if self.live != expected:
            raise Conflict("somebody moved it")
        self.live = number
        return pointing(number, to=alias)


@dataclass
class Hall:
    """What `Control` is to experiments."""

    rows: Rows = field(default_factory=Rows)
    experiments: MemoryExperiments = field(default_factory=MemoryExperiments)
    records: MemoryRecords = field(default_factory=MemoryRecords)
    slots: int = 16
    selftest_alias: str = ""

    @property
    def adapters(self) -> Rows:
        return self.rows

    @property
    def registry(self) -> Rows:
        return self.rows

    @property
    def settings(self) -> Settings:
        return Settings(engine=Engine(max_loras=self.slots), selftest_alias=self.selftest_alias)

    def open(self, *, who: str = "ann", now: float = NOW, **changes: Any) -> Experiment:
        control: Any = self
        return open_experiment(control, self.settings, replace(wish(), **changes), who=who, now=now)


def wish(**changes: Any) -> Definition:
    given: dict[str, Any] = {
        "name": "support",
        "alias": "live",
        "arms": arms(old=1, new=2),
        "metrics": (UP, ERRORS),
        "ramp": (Step(share=5000, at_least_s=0.0),),
        "horizon": 400,
        **changes,
    }
    return Definition(**given)


def arms(**numbers: int) -> tuple[Arm, ...]:
    return tuple(Arm(name=name, number=number) for name, number in numbers.items())


def pointing(number: int, *, name: str = "support", to: str = "live", pinned: bool = False) -> Alias:
    return replace(alias(number, name=name, to=to), pinned=pinned)


def visits(
    test: Experiment,
    *,
    units: int = 400,
    up: tuple[float, float] = (0.5, 0.5),
    failed: tuple[float, float] = (0.0, 0.0),
    at: float = NOW,
) -> Iterable[Event]:
    """One request a unit, every second one in the treatment; the first so many of an arm's get a thumb up, or fail."""
    for n in range(units):
        arm, rank = n % 2, (n // 2) / (units / 2)
        moment = at + n / units
        rest: dict[str, Any] = {"tenant": "acme", "experiment": test.id}
        yield Exposure(
            id=from_parts(int(moment * 1000), 0, 3 * n), at=moment, unit=f"user-{n}", unit_kind="user",
            arm=test.arms[arm].name, request_id=f"r{n}", completion_id=f"chatcmpl-{n}", **rest,
        )  # fmt: skip
        yield Inference(
            id=from_parts(int(moment * 1000), 0, 3 * n + 1), completion_id=f"chatcmpl-{n}", request_id=f"r{n}",
            endpoint="chat", model="support", started_at=moment, completion_tokens=5,
            status=500 if rank < failed[arm] else 200, error="engine_error" if rank < failed[arm] else "", **rest,
        )  # fmt: skip
        yield Feedback(
            id=from_parts(int(moment * 1000), 0, 3 * n + 2), at=moment, tenant="acme", target=f"chatcmpl-{n}",
            kind="thumbs", rater=f"user-{n}", value=1.0 if rank < up[arm] else -1.0,
        )  # fmt: skip


def proposed(hall: Hall, test: Experiment) -> Proposal:
    proposal = Proposal(
        id=f"{test.id}.0", experiment=test.id, verdict=Verdict.PROMOTE, arm="new", step=0, role="operator",
        reasons=("better",), proposed_at=NOW, expires_at=NOW + 60,
    )  # fmt: skip
    ruling = Ruling(experiment=test.id, at=NOW, verdict=Verdict.HOLD, reasons=(), who=WHO)
    hall.experiments.take(Turn(after=test, ruling=ruling, proposal=proposal))
    return proposal
