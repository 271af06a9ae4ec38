"""A file as a frozen value. Times are unix seconds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from training.data.imports.files import Container
from training.data.values import Kind

Purpose: TypeAlias = Literal["fine-tune", "evals", "user_data", "fine-tune-results"]
PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)
#: What clients may send; results are made here only.
SENT: Final[tuple[Purpose, ...]] = ("fine-tune", "evals", "user_data")
#: What is read line by line when it arrives.
OF_ROWS: Final[frozenset[Purpose]] = frozenset({"fine-tune", "evals"})
FileState: TypeAlias = Literal["uploaded", "processed", "error"]

_SUFFIX: Final[dict[Container, str]] = {
    "jsonl": ".jsonl",
    "json": ".json",
    "csv": ".csv",
    "tsv": ".tsv",
    "text": ".txt",
    "parquet": ".parquet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file. A row stands for bytes that are whole on disk, and nothing of either ever changes.

    `state` is "processed" once every line was read and is good (at once where the purpose has no lines), or "error",
    and `details` says what is wrong. `kind` and `rows` are what its lines hold; `container` is how they are written.
    """

    id: str
    tenant: str
    owner: str = ""
    created_at: float
    filename: str
    purpose: Purpose
    bytes: int
    digest: str
    state: FileState = "processed"
    details: str = ""
    container: Container = "jsonl"
    kind: Kind | None = None
    rows: int = 0
    expires_at: float | None = None

    @property
    def stored(self) -> str:
        """Its name on disk, by which everything that reads files knows what it is."""
        return f"{self.id}{_SUFFIX[self.container] if self.purpose in OF_ROWS else ''}"

    def gone(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


def new_id() -> str:
    """A new file's id, 96 random bits."""
    return f"file-{secrets.token_hex(12)}"
