"""What is asked of a version, what was measured, and how sure that is. Light: the gate and the model card read it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from training.evaluation.errors import BadEvaluation, BadPlan

#: Who answered. `base` is the base without an adapter, `live` the version that serves now.
Subject: TypeAlias = Literal["candidate", "base", "live"]
SUBJECTS: tuple[Subject, ...] = get_args(Subject)
Better: TypeAlias = Literal["higher", "lower", "neither"]
#: What a suite is for. Guards of the gate go by it.
Role: TypeAlias = Literal["held", "task", "forgetting", "safety", "over_refusal", "stereotype"]
ROLES: tuple[Role, ...] = get_args(Role)
FILE = "evaluation.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far the candidate is from another subject on the same rows: candidate − other, paired, with its interval."""

    versus: Subject
    n: int  #: rows that both answered
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One measure on the rows that have one value of a column."""

    name: str
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One measure, cut by a declared column. `gap` is how far the worst slice is from the best, never negative."""

    by: str
    slices: tuple[Slice, ...]
    worst: str
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number about one subject. Its interval holds with the evaluation's `level`, usually 95 %.

    `name` is `SUITE.MEASURE`, such as `held.loss` or `facts.right`: what targets and guards of a recipe name.
    """

    name: str
    subject: Subject
    n: int  #: rows it is calculated from
    value: float
    low: float
    high: float
    role: Role = "held"
    better: Better = "higher"
    versus: tuple[Difference, ...] = ()  #: of the candidate only
    cuts: tuple[Cut, ...] = ()
    unit: str = ""  #: "nats per token", "share", "tokens", …

    @property
    def higher_is_better(self) -> bool:
        """Whether more is better. A length is neither better when longer nor when shorter: ask `better`."""
        return self.better == "higher"

    def against(self, other: Subject) -> Difference | None:
        """The paired difference from another subject, where that one was asked too."""
        return next((each for each in self.versus if each.versus == other), None)

    @property
    def versus_base(self) -> Difference | None:
        return self.against("base")

    @property
    def versus_live(self) -> Difference | None:
        return self.against("live")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What was asked: where the rows came from, and what became of them."""

    name: str
    source: str
    digest: str  #: over the rows as they were asked
    rows: int
    unanswered: int = 0  #: rows that a subject gave no answer to; they count as failed, or leave in pairs: see `run`
    left: Mapping[str, int] = field(default_factory=dict)  #: rows that could not be asked, by why


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything measured of one candidate. `digest` names the questions: the plan and all rows, not the answers."""

    digest: str
    models: Mapping[Subject, str]
    suites: tuple[Suite, ...]
    measured: tuple[Measured, ...]
    level: float = 0.95
    judge: str = ""  #: the judge's model, or nothing
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    format: int = FORMAT

    def find(self, name: str, subject: Subject = "candidate") -> Measured | None:
        """One number, or None where it was not measured."""
        return next((each for each in self.measured if each.name == name and each.subject == subject), None)

    def of(self, subject: Subject) -> Iterator[Measured]:
        """All numbers about one subject."""
        return (each for each in self.measured if each.subject == subject)

    def document(self) -> dict[str, Any]:
        return {"object": "evaluation", **asdict(self)}

    def dump(self) -> bytes:
        """As it is written to `evaluation.json`."""
        return orjson.dumps(self.document(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


# The plan: bytes enter here, so it is checked


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Endpoint(_Strict):
    """Something that speaks OpenAI's HTTP."""

    url: str = Field(
        pattern=r"^(https?://|unix:/)", description="http://…, https://… or unix:/path; with /v1 at its end or without."
    )
    key: SecretStr = Field(SecretStr(""), description="Sent as a bearer token.")
    at_once: int = Field(8, ge=1, le=256, description="Questions asked at the same time.")
    tries: int = Field(4, ge=1, description="Times that a question is asked before it counts as unanswered.")
    timeout_s: float = Field(120.0, gt=0, description="Seconds for one answer.")


class Judge(Endpoint):
    """A model that compares and rates answers; it should be none that gave a reward in training."""

    model: str
    tokens_max: int = Field(256, ge=1, description="Longest verdict.")
    rows_max: int = Field(200, ge=1, description="Rows of each suite that the judge sees.")


class Models(_Strict):
    """The names by which the engine knows who is asked."""

    candidate: str
    base: str
    live: str = Field("", description="The version that serves now; empty where there is none.")


class Check(_Strict):
    """A thing that every answer of a suite can be looked at for; its name is the measure's. One of the three."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    contains: str = ""
    regex: str = Field("", description="Searched anywhere in the answer.")
    json_schema: dict[str, Any] | None = Field(None, description="What the answer, read as JSON, must be.")
    better: Better = "higher"


class Asked(_Strict):
    """Rows, and what they are for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$", description="The first half of its measures' names.")
    source: str = Field(description="`tidewell:NAME`, `builtin:NAME`, a .jsonl or .parquet file, a dataset's folder.")
    role: Role = Field("held", description="held: of the training's kind; forgetting: what must not get worse; …")
    measures: tuple[str, ...] = Field((), description="Which measures; left out: all that the rows allow.")
    rows_max: int = Field(400, ge=1, description="At most so many rows, drawn by `seed`.")
    by: tuple[str, ...] = Field((), description="Columns to cut the measures by.")
    checks: tuple[Check, ...] = Field((), description="Looks at every answer, beside the checks that rows bring.")


class Plan(_Strict):
    """What is asked of whom."""

    engine: Endpoint
    models: Models
    suites: tuple[Asked, ...] = Field(min_length=1)
    judge: Judge | None = None
    tokens_max: int = Field(256, ge=1, description="Longest answer.")
    level: float = Field(0.95, gt=0.5, lt=1, description="How sure intervals are.")
    resamples: int = Field(2000, ge=200, description="Resamples of a bootstrap.")
    seed: int = Field(0, ge=0, description="Draws rows and resamples.")
    unanswered_max: float = Field(0.05, ge=0, lt=1, description="A larger share without an answer ends the evaluation.")

    def dump(self) -> bytes:
        """As `python -m training.evaluation` reads it, keys included: for a pipe, or a file that nobody else reads."""
        document = self.model_dump(mode="json")
        document["engine"]["key"] = self.engine.key.get_secret_value()
        if self.judge is not None:
            document["judge"]["key"] = self.judge.key.get_secret_value()
        return orjson.dumps(document)

    def identity(self) -> dict[str, Any]:
        """What decides the numbers: no address, key or speed."""
        return self.model_dump(mode="json", exclude={"engine": True, "judge": {*Endpoint.model_fields}})


def read(body: bytes) -> Plan:
    """The plan in these bytes. Raises BadPlan with every problem."""
    try:
        plan = Plan.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise BadPlan(
            [f"{'.'.join(map(str, one['loc'])) or 'plan'}: {one['msg']}" for one in error.errors(include_url=False)]
        ) from error
    names = [each.name for each in plan.suites]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadPlan([f"suites: {', '.join(twice)} is there more than once"])
    return plan


def load(body: bytes) -> Evaluation:
    """The evaluation in these bytes. Raises BadEvaluation."""
    try:
        document = orjson.loads(body)
        if document.pop("object") != "evaluation" or document["format"] != FORMAT:
            raise BadEvaluation("The file holds no evaluation, or one of a later version of this program.")
        return Evaluation(
            suites=tuple(Suite(**each) for each in document.pop("suites")),
            measured=tuple(map(_measured, document.pop("measured"))),
            warnings=tuple(document.pop("warnings")),
            **document,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
        raise BadEvaluation(f"The evaluation cannot be read: {problem}") from problem


def digest(document: Any) -> str:
    """The name of a JSON document: the same content has the same one."""
    return "sha256:" + hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _measured(document: dict[str, Any]) -> Measured:
    versus = tuple(Difference(**each) for each in document.pop("versus"))
    cuts = tuple(Cut(slices=tuple(Slice(**one) for one in each.pop("slices")), **each) for each in document.pop("cuts"))
    return Measured(versus=versus, cuts=cuts, **document)
