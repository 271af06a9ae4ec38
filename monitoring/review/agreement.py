"""How far people agree beyond chance. Pure; every figure says on how many it stands, and is NaN where it is undefined.

All are undefined when nothing was judged by two people, and when everybody always says the same: then chance alone
explains all agreement. Above 0.8 labels are usually trusted, below 0.67 they are not (Krippendorff 2004, ch. 11.4).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Value: TypeAlias = str | float
#: Task → reviewer → what was said.
Ratings: TypeAlias = Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One coefficient: 1 is perfect, 0 what chance gives, below 0 worse than chance."""

    value: float
    items: int  # that were judged by enough people to count
    ratings: int  # of these items
    observed: float = math.nan  # the share of agreeing pairs; of `interval` the spread within items over that of all


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two reviewers, by name, on the tasks that both judged."""

    first: str
    second: str
    kappa: Agreement


def cohen(first: Sequence[Value], second: Sequence[Value]) -> Agreement:
    """Cohen's kappa of two people who judged the same items, in the same order; nominal.

    κ = (p_o − p_e) / (1 − p_e): p_o the share of items judged alike, p_e = Σ_c p_1(c)·p_2(c) with each one's own
    shares. Assumes independent items and judgements. Cohen, J. (1960), "A coefficient of agreement for nominal scales",
    Educational and Psychological Measurement 20(1), 37–46.
    """
    if len(first) != len(second):
        raise ValueError(f"Both must judge the same items; found {len(first)} and {len(second)}.")
    n = len(first)
    if not n:
        return Agreement(value=math.nan, items=0, ratings=0)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    ours, theirs = Counter(first), Counter(second)
    expected = sum(ours[each] * theirs[each] for each in ours) / n**2
    return Agreement(value=_beyond(observed, expected), items=n, ratings=2 * n, observed=observed)


def fleiss(counts: Sequence[Sequence[int]]) -> Agreement:
    """Fleiss' kappa: items by categories, how many people chose which; as many people for every item, at least two,
    not always the same; nominal.

    κ = (P̄ − P̄_e) / (1 − P̄_e): P̄ the mean over items of Σ_j n_ij(n_ij − 1) / (n(n − 1)), P̄_e = Σ_j p_j² with the
    categories' shares over all. Fleiss, J. L. (1971), "Measuring nominal scale agreement among many raters",
    Psychological Bulletin 76(5), 378–382.
    """
    people = {sum(row) for row in counts}
    if len(people) > 1 or any(n < 2 for n in people):
        raise ValueError(f"Every item needs the same number of people, at least two; found {sorted(people)}.")
    if not counts:
        return Agreement(value=math.nan, items=0, ratings=0)
    n, total = people.pop(), sum(map(sum, counts))
    observed = sum(sum(k * (k - 1) for k in row) / (n * (n - 1)) for row in counts) / len(counts)
    expected = sum((sum(column) / total) ** 2 for column in zip(*counts, strict=True))
    return Agreement(value=_beyond(observed, expected), items=len(counts), ratings=total, observed=observed)


def krippendorff(units: Sequence[Sequence[Value]], level: Literal["nominal", "interval"] = "nominal") -> Agreement:
    """Krippendorff's alpha: any number of people, each judging what they judged; items judged once do not count.

    α = 1 − D_o / D_e, D_o the mean distance of two judgements of the same item (each item's pairs weighted by
    1/(m_u − 1)), D_e that of any two judgements. Distance: nominal 0 or 1; interval the squared difference, for
    numbers on one scale. Krippendorff, K. (2011), "Computing Krippendorff's alpha-reliability",
    https://repository.upenn.edu/asc_papers/43.
    """
    counting = [unit for unit in units if len(unit) > 1]
    values = [value for unit in counting for value in unit]
    n = len(values)
    if not n:
        return Agreement(value=math.nan, items=0, ratings=0)
    within = math.fsum(_spread(unit, level) / (len(unit) - 1) for unit in counting) / n
    among = _spread(values, level) / (n * (n - 1))
    value = 1 - within / among if among else math.nan
    observed = 1 - within if level == "nominal" else (within / among if among else math.nan)
    return Agreement(value=value, items=len(counting), ratings=n, observed=observed)


def pairs(ratings: Ratings) -> list[Pair]:
    """Cohen's kappa of every two people who have judged something in common."""
    people = sorted({who for said in ratings.values() for who in said})
    found: list[Pair] = []
    for first, second in itertools.combinations(people, 2):
        both = [(said[first], said[second]) for said in ratings.values() if first in said and second in said]
        if both:
            ours, theirs = zip(*both, strict=True)
            found.append(Pair(first=first, second=second, kappa=cohen(ours, theirs)))
    return found


def fleiss_of(ratings: Ratings) -> tuple[Agreement, int]:
    """Fleiss' kappa on the largest set of tasks that as many people judged, and how many people that is (0: none).

    The others are left out, since it is defined for one number of people; alpha takes all.
    """
    sizes = Counter(len(said) for said in ratings.values() if len(said) > 1)
    people = max(sizes, key=lambda size: (sizes[size], size), default=0)
    chosen = [Counter(said.values()) for said in ratings.values() if people and len(said) == people]
    categories = sorted({value for counts in chosen for value in counts}, key=str)
    return fleiss([[counts[each] for each in categories] for counts in chosen]), people


def alpha_of(ratings: Ratings, level: Literal["nominal", "interval"] = "nominal") -> Agreement:
    """Krippendorff's alpha on all tasks that more than one person judged."""
    return krippendorff([list(said.values()) for said in ratings.values()], level)


def _beyond(observed: float, expected: float) -> float:
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def _spread(values: Sequence[Value], level: Literal["nominal", "interval"]) -> float:
    """The sum of distances over all ordered pairs."""
    n = len(values)
    if level == "nominal":
        return float(n * n - sum(k * k for k in Counter(values).values()))
    numbers = [float(value) for value in values]
    mean = math.fsum(numbers) / n
    return 2 * n * math.fsum((number - mean) ** 2 for number in numbers)
