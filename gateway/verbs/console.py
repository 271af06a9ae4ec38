"""What the CLI prints: plain lines and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from gateway.settings import Settings

_OUT = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One message, as it is."""
    _OUT.print(text, markup=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table that stays readable when it is piped: what its rows are called is never cut."""
    found = list(rows)
    drawn = Table(title=title, title_justify="left")
    for at, name in enumerate(columns):
        longest = max((len(str(row[0])) for row in found), default=0) if at == 0 else None
        drawn.add_column(name, no_wrap=at == 0, min_width=longest)
    for row in found:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    _OUT.print(drawn)


def when(at: float) -> str:
    """A moment, unix seconds, as people write it, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar of bytes, drawn on a terminal only; the callback takes (done, total or None)."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_OUT, transient=True, disable=not _OUT.is_terminal) as progress:
        task = progress.add_task(escape(title), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def settings_table(settings: Settings) -> None:
    """Every setting with its value here."""
    rows = []
    for name, field in Settings.model_fields.items():
        if name != "engine":
            rows.append((name, getattr(settings, name), field.description or ""))
    for name, field in type(settings.engine).model_fields.items():
        rows.append((f"engine.{name}", getattr(settings.engine, name), field.description or ""))
    table("Settings", ("setting", "value", "meaning"), rows)
