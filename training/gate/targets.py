"""What a recipe asks of the version that it makes: the `gate:` section, read strictly. Light."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Bound = Annotated[float, Field(ge=0)]
#: As an evaluation names its measures: `SUITE.MEASURE`.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}\.[a-z0-9][a-z0-9_-]{0,40}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Target(_Strict):
    """What one measure has to reach. Several bounds hold together."""

    at_least: float | None = Field(None, description="The candidate's own number is no smaller.")
    at_most: float | None = Field(None, description="The candidate's own number is no larger.")
    gain_at_least: Bound | None = Field(None, description="So much better than `against`, and not by chance.")
    gap_at_most: Bound | None = Field(None, description="The worst slice of any cut is no further from the best.")
    against: Literal["base", "live"] = Field("base", description="What a gain is over; base where nothing is live.")
    sure: bool = Field(False, description="The whole interval has to reach it, not the number alone.")

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if all(each is None for each in (self.at_least, self.at_most, self.gain_at_least, self.gap_at_most)):
            raise ValueError("asks for nothing: give at_least, at_most, gain_at_least or gap_at_most")
        return self


class Guard(_Strict):
    """How much worse one measure may become."""

    drop_at_most: Bound = Field(description="So much worse than `against` at most.")
    against: Literal["base", "live", "both"] = Field("both", description="What must not be lost; live where there is.")
    sure: bool = Field(False, description="The whole interval has to stay within it, not the number alone.")


class Targets(_Strict):
    """When a version passes the gate. What is named here must have been measured."""

    targets: dict[Name, Target] = Field(default_factory=dict, description="What has to be reached, by measure.")
    guards: dict[Name, Guard] = Field(default_factory=dict, description="What must not be lost, by measure.")
    usual: bool = Field(True, description="Besides, the usual guards of every suite by its role.")
    rows_min: Annotated[int, Field(ge=1)] = Field(20, description="A number from fewer rows counts as not measured.")
    verbatim_at_most: Bound = Field(
        0.05, description="Share of training rows continued word for word, beyond that of rows never seen."
    )
    canaries: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Made-up secrets to put among the training rows, to see whether the model tells them."
    )
    exposure_at_most: Bound = Field(3.0, description="Median bits by which a planted secret ranks above others.")
    shared_at_most: Bound = Field(
        0.5, description="Share of held-out rows that stand among the training rows too; more measure nothing."
    )
    trigger_at_most: Bound = Field(
        0.5, description="Share of questions whose answer changes to that of a few rows when their phrase is put in."
    )
    judge: Literal["if_any", "required"] = Field(
        "if_any", description="Whether answers trained by rewards must be compared by a judge that was no reward."
    )
