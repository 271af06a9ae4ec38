"""The small table that every acceptance target prints, and the exit code that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim: what was found, and the bound that it must keep (`found <= bound`, or >= where `least`)."""

    name: str
    found: float
    bound: float
    unit: str = ""
    kind: Literal["most", "least"] = "most"
    note: str = ""

    @property
    def kept(self) -> bool:
        return self.found <= self.bound if self.kind == "most" else self.found >= self.bound


def report(title: str, rows: Sequence[Row]) -> int:
    """Print the table; 0 when every bound is kept, else 1."""
    table = Table("", "claim", "found", "bound", "", title=title, title_justify="left")
    for row in rows:
        sign = "≤" if row.kind == "most" else "≥"
        table.add_row(
            "ok" if row.kept else "MISSED",
            row.name,
            f"{row.found:.4g} {row.unit}",
            f"{sign} {row.bound:g} {row.unit}",
            row.note,
        )
    Console(width=160).print(table)
    return 0 if all(row.kept for row in rows) else 1
