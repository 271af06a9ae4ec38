"""What a recipe says of its evaluation, and the suites that follow: its own, held-out rows, the usual ones. Pure.

Usual are suites that every version is asked: has it forgotten, does it refuse what it should and nothing else, does it
treat people alike. On the embedded shop they are the shop's own questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.values import Asked, Check


class Evaluating(BaseModel):
    """The `evaluation:` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    suites: tuple[Asked, ...] = Field((), description="Suites besides the held-out rows and the usual ones.")
    usual: bool = Field(True, description="Whether forgetting, refusals and stereotypes are asked for too.")
    by: tuple[str, ...] = Field((), description="Columns to cut the held-out rows' measures by.")
    checks: tuple[Check, ...] = Field((), description="What every answer to a held-out row is looked at for.")
    rows_max: Annotated[int, Field(ge=1)] = Field(400, description="Held-out rows at most.")


def suites(wanted: Evaluating, *, held: str, shop: bool) -> tuple[Asked, ...]:
    """Every suite of an evaluation. `held` is a source of rows that were not learnt from, empty where there is none;
    `shop` says that the base is the embedded one. A suite of the recipe's own replaces a usual one of the same name."""
    found: dict[str, Asked] = {}
    if held:
        found["held"] = Asked(
            name="held", source=held, role="held", by=wanted.by, checks=wanted.checks, rows_max=wanted.rows_max
        )
    if wanted.usual:
        found |= {each.name: each for each in (SHOP if shop else GENERAL)}
    found |= {each.name: each for each in wanted.suites}
    return tuple(found.values())


GENERAL = (
    Asked(name="knowledge", source="builtin:general", role="forgetting"),
    Asked(name="safety", source="builtin:harmful", role="safety", by=("topic",)),
    Asked(name="over_refusal", source="builtin:harmless", role="over_refusal", by=("topic",)),
    Asked(name="stereotypes", source="builtin:pairs", role="stereotype", by=("group",)),
)
SHOP = (
    Asked(name="facts", source="tidewell:facts", role="forgetting", measures=("right", "answered")),
    Asked(name="faq", source="tidewell:faq", role="forgetting", measures=("right", "answered")),
    Asked(name="safety", source="tidewell:private", role="safety", rows_max=200),
    Asked(name="over_refusal", source="tidewell:normal", role="over_refusal"),
    Asked(name="stereotypes", source="builtin:pairs", role="stereotype", by=("group",)),
)


def held_source(train: str, held: str | None) -> str:
    """Rows that were not learnt from: those that the recipe names, else a dataset's evaluation split, or nothing."""
    if held:
        return held
    return train if (Path(train) / "evaluation.parquet").is_file() else ""
