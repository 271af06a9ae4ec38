"""Rows of the bench's table: over all seeds, the worst counts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from training.recipes.bench.cases import Case, Habit
from training.recipes.bench.exam import Marks, drop
from training.recipes.bench.runs import Result

CPU_SECONDS_MAX, DROP_MAX, WRONG_MAX = 90.0, 0.03, 0.02
HEADS: Final = (
    "method", "learnt", "before", "after, worst", "bound", "facts drop", "FAQ drop", "wrong refusals",
    "served − recorded (nats: mean, p99, most)", "CPU s", "",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The cells of one method, and which bounds it misses."""

    cells: tuple[str, ...]
    missed: tuple[str, ...]


def row(case: Case, found: Sequence[Result], before: Marks) -> Row:
    """One method over its seeds."""
    if failed := [one.failed for one in found if one.failed]:
        return Row(cells=(case.name, case.habit, *[""] * 8, f"FAILED: {failed[0]}"), missed=(failed[0],))
    missed = [*_dear(found)]
    cpu = f"{max(one.cpu_s for one in found):.0f}"
    if case.habit == "accuracy":
        worst = min(one.accuracy or 0.0 for one in found)
        missed += [f"accuracy {worst:.3f}"] if worst < case.least else []
        cells = [case.name, case.habit, "", f"{worst:.3f}", f"≥ {case.least:g}", *[""] * 4, cpu]
        return _row(cells, missed)
    marked = [one.marks for one in found if one.marks is not None]
    habits: list[Habit] = [case.habit, *([case.second] if case.second else [])]
    after = [min(rate(one, habit) for one in marked) for habit in habits]
    missed += [f"{habit} {share:.3f}" for habit, share in zip(habits, after, strict=True) if share < case.least]
    facts = max((drop(before.facts, one.facts) for one in marked), key=lambda each: each[0])
    faq = max((drop(before.faq, one.faq) for one in marked), key=lambda each: each[0])
    missed += [f"{name} drop {each[0]:.3f}" for name, each in (("facts", facts), ("FAQ", faq)) if each[0] > DROP_MAX]
    wrong = max(rate(one, "refused_wrongly") for one in marked)
    missed += [f"wrong refusals {wrong:.3f}"] if wrong > WRONG_MAX else []
    parity = [one.parity for one in found if one.parity is not None]
    missed += [f"parity {each.most:.2f}" for each in parity if not each.passed][:1]
    numbers = [max(each.mean for each in parity), max(each.p99 for each in parity), max(each.most for each in parity)]
    cells = [
        case.name,
        " + ".join(habits),
        " + ".join(f"{rate(before, habit):.2f}" for habit in habits),
        " + ".join(f"{share:.3f}" for share in after),
        f"≥ {case.least:g}",
        *(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in (facts, faq)),
        f"{wrong:.3f}",
        f"{', '.join(f'{each:.3f}' for each in numbers)} ({parity[0].by})",
        cpu,
    ]
    return _row(cells, missed)


def rate(marked: Marks, habit: str) -> float:
    """The share of one habit."""
    right: tuple[bool, ...] = getattr(marked, habit)
    return sum(right) / len(right)


def markdown(rows: Sequence[Row]) -> str:
    """The table as it stands in documents."""
    lines = [HEADS, ["---"] * len(HEADS), *(each.cells for each in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(cells: Sequence[str], missed: Sequence[str]) -> Row:
    return Row(cells=(*cells, f"MISSED: {', '.join(missed)}" if missed else "ok"), missed=tuple(missed))


def _dear(found: Sequence[Result]) -> list[str]:
    most = max(one.cpu_s for one in found)
    return [f"{most:.0f} CPU s"] if most > CPU_SECONDS_MAX else []
