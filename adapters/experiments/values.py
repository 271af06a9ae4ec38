"""Experiments as frozen values. Shares are in basis points: ten thousandths of the units. Times are unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

BUCKETS = 10_000


class Unit(StrEnum):
    """What is assigned to an arm, and so the row of every analysis."""

    USER = "user"
    CONVERSATION = "conversation"
    KEY = "key"
    REQUEST = "request"


class Kind(StrEnum):
    """What a metric's number per unit is."""

    PROPORTION = "proportion"  # the share, within [0, 1], of a unit's events that are of one kind
    MEAN = "mean"  # any number per unit
    RATIO = "ratio"  # a sum over a sum
    SHARE_ABOVE = "share_above"  # the share of a unit's events above a threshold


class Role(StrEnum):
    PRIMARY = "primary"
    GUARDRAIL = "guardrail"
    DIAGNOSTIC = "diagnostic"


class Better(StrEnum):
    HIGHER = "higher"
    LOWER = "lower"


class Part(StrEnum):
    """Of which units a guardrail speaks: all, the slice that fares worst, or how far apart the slices' effects are."""

    ALL = "all"
    WORST = "worst"
    GAP = "gap"


class Stage(StrEnum):
    """Where an experiment stands."""

    RUNNING = "running"
    PROMOTING = "promoting"  # decided; the alias is being moved
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    STOPPED = "stopped"


MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.RUNNING: frozenset({Stage.PROMOTING, Stage.ROLLED_BACK, Stage.STOPPED}),
    Stage.PROMOTING: frozenset({Stage.RUNNING, Stage.PROMOTED, Stage.STOPPED}),
    Stage.PROMOTED: frozenset(),
    Stage.ROLLED_BACK: frozenset(),
    Stage.STOPPED: frozenset(),
}

#: An experiment in one of these has its alias for itself.
ACTIVE = frozenset({Stage.RUNNING, Stage.PROMOTING})


class Verdict(StrEnum):
    """What a ruling says."""

    OPEN = "open"
    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll_back"
    RAMP = "ramp"
    DROP = "drop"  # one of several arms is taken out, the others go on
    STOP = "stop"  # by a person, or because somebody moved the alias


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A version under a name of its own, with all that the version carries. The first arm is the control."""

    name: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is compared.

    `source`: a name in metrics.SOURCES, or `feedback:NAME` for a scalar of that name. `window_s`: how long after a
    unit's first exposure its outcomes count; only units whose window has closed do. `margin` ≥ 0, in the metric's own
    unit: how much worse a guardrail may be. `threshold` of a share above. `slices`: metadata keys that are looked at
    separately. `rare`: judged by betting, which needs no normal limit; fixed here, for to choose after a look would
    break the guarantee.
    """

    name: str
    source: str
    kind: Kind
    better: Better
    role: Role
    window_s: float = 0.0
    margin: float = 0.0
    threshold: float = 0.0
    slices: tuple[str, ...] = ()
    part: Part = Part.ALL
    rare: bool = False

    @property
    def bounded(self) -> bool:
        """Whether each unit's number lies within [0, 1]."""
        return self.kind in (Kind.PROPORTION, Kind.SHARE_ABOVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a ramp: this share of the units in each arm, for this long at least."""

    share: int
    at_least_s: float


#: 1, 5, 10, 25 and 50 %, an hour each at least.
RAMP = tuple(Step(share=share, at_least_s=3600.0) for share in (100, 500, 1000, 2500, 5000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Shares follow what was seen, anew every `epoch_s`; no arm falls below `floor`, a share of the units."""

    floor: float = 0.1
    epoch_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The arms' shares since a moment, in the order of the arms: the `targets` that were aimed at, and the `shares` of
    the buckets that came of it, which are the propensities. See assignment.epoch."""

    since: float
    targets: tuple[float, ...]
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One test on one alias of one adapter. All that the guarantees rest on is fixed when it opens; what changes is in
    the second block. `turn` counts the changes, and each is a compare-and-set on it."""

    id: str
    name: str
    alias: str
    salt: str
    unit: Unit
    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]
    ramp: tuple[Step, ...] = RAMP
    holdout: int = 0
    alpha: float = 0.05
    guard_alpha: float = 0.01  # for all guardrails together: how often a harmless treatment is rolled back
    srm_alpha: float = 0.001
    horizon: int = 4000  # the number of units at which the intervals are narrowest
    promote_after_s: float = 0.0  # not before: whole weeks, where weekdays differ
    adaptive: Adaptive | None = None
    shadow: Arm | None = None  # mirrored, never answered from
    selftest: bool = False  # A/A: both arms are one version, and every difference is an alarm
    ask_before: tuple[Verdict, ...] = ()  # PROMOTE, RAMP: a person approves first
    ask_role: str = "engineer"
    ask_s: float = 86_400.0  # how long a proposal stands
    opened_at: float = 0.0
    opened_by: str = ""
    note: str = ""

    stage: Stage = Stage.RUNNING
    step: int = 0
    step_since: float = 0.0
    epochs: tuple[Epoch, ...] = ()
    dropped: tuple[str, ...] = ()
    chosen: str = ""  # the arm that is being promoted, or was
    srm: float = 0.0  # the largest evidence of a sample-ratio mismatch at any look (natural logarithm)
    ended_at: float = 0.0
    turn: int = 0

    @property
    def share(self) -> int:
        """Basis points of the units in each arm now."""
        return self.ramp[self.step].share

    @property
    def control(self) -> Arm:
        return self.arms[0]

    @property
    def treatments(self) -> tuple[Arm, ...]:
        """The arms that are still compared with the control."""
        return tuple(arm for arm in self.arms[1:] if arm.name not in self.dropped)

    @property
    def primary(self) -> Metric:
        return next(metric for metric in self.metrics if metric.role is Role.PRIMARY)

    @property
    def active(self) -> bool:
        return self.stage in ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One decision, with the numbers it was made on. `turn` is the experiment's after it."""

    experiment: str
    at: float
    verdict: Verdict
    reasons: tuple[str, ...]
    who: str
    arm: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    turn: int = 0


class Answer(StrEnum):
    """What became of a proposal."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"  # the experiment ended, or was decided otherwise, before anybody answered
    DONE = "done"  # approved and carried out


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A decision that waits for a person of `role`. At most one of an experiment is pending or approved."""

    id: str
    experiment: str
    verdict: Verdict
    arm: str
    step: int  # where the experiment stood
    role: str
    reasons: tuple[str, ...]
    proposed_at: float
    expires_at: float
    answer: Answer = Answer.PENDING
    decided_by: str = ""
    decided_at: float = 0.0
    why: str = ""

    @property
    def open(self) -> bool:
        return self.answer in (Answer.PENDING, Answer.APPROVED)
