"""Data whose truth is known. Each world is drawn from one generator and is revealed over a number of looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.statistics.values import Array

USERS = 4000
LOOKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustered:
    """Requests of users who differ: per request its user (r,), look (r,) and success (r,); per user an arm (u,) and
    what was known of them before (u,)."""

    user: NDArray[np.int64]
    look: NDArray[np.int64]
    success: Array
    treated: NDArray[np.bool_]
    before: Array


def clustered(generator: np.random.Generator, *, lift: float = 0.0, users: int = USERS) -> Clustered:
    """Users with success rates from Beta(2.28, 1.52) (mean 0.60, sd 0.22), five requests each on average, spread over
    the looks from the user's arrival on; `lift` is added to the rate of the treated."""
    rate = generator.beta(2.28, 1.52, users)
    treated = generator.random(users) < 0.5
    requests = 1 + generator.poisson(4, users)
    arrival = generator.integers(0, LOOKS, users)
    user = np.repeat(np.arange(users), requests)
    look = generator.integers(arrival[user], LOOKS)
    chance = np.clip(rate + lift * treated, 0, 1)[user]
    before = generator.binomial(5, rate) / 5
    return Clustered(
        user=user,
        look=look,
        success=(generator.random(user.size) < chance).astype(np.float64),
        treated=treated,
        before=before.astype(np.float64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delayed:
    """One outcome a user, which comes `delay_s` after the exposure: (u,) each."""

    exposed_s: Array
    delay_s: Array
    happy: Array
    treated: NDArray[np.bool_]


def delayed(generator: np.random.Generator, *, users: int = USERS, span_s: float = 40.0) -> Delayed:
    """Identical arms, but the unhappy users of the treated arm complain up to four times later: at 8 s at most."""
    treated = generator.random(users) < 0.5
    happy = (generator.random(users) < 0.7).astype(np.float64)
    slow = treated & (happy == 0)
    return Delayed(
        exposed_s=np.sort(generator.random(users)) * span_s,
        delay_s=generator.random(users) * np.where(slow, 8.0, 2.0),
        happy=happy,
        treated=treated,
    )


def bounded(
    generator: np.random.Generator, *, rate: float, harm: float = 0.0, units: int = USERS
) -> tuple[Array, Array]:
    """A yes or no for each unit (u,), and its arm (u,): a rate such as that of safety flags, higher by `harm` if
    treated."""
    treated = generator.random(units) < 0.5
    return (generator.random(units) < rate + harm * treated).astype(np.float64), treated.astype(np.float64)
