"""What the CLI prints: plain lines and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.settings import Settings

_OUT = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One message, as it is."""
    _OUT.print(text, markup=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table that stays readable when it is piped."""
    drawn = Table(*columns, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    _OUT.print(drawn)


def settings_table(settings: Settings) -> None:
    """Every setting with its value here."""
    rows = []
    for name, field in Settings.model_fields.items():
        if name != "engine":
            rows.append((name, getattr(settings, name), field.description or ""))
    for name, field in type(settings.engine).model_fields.items():
        rows.append((f"engine.{name}", getattr(settings.engine, name), field.description or ""))
    table("Settings", ("setting", "value", "meaning"), rows)
