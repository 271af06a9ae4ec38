"""Options of verbs that can ask a gateway elsewhere, over the routes that everybody uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.errors import BadField
from gateway.verbs import remote

Url = Annotated[str, typer.Option("--url", "--to", help="Ask this gateway instead of this machine.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="The file that holds the key for that gateway.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A gateway elsewhere, and the key for it."""

    url: str
    key: str

    def get(self, path: str, **query: str | int | bool) -> dict[str, Any]:
        """Raises GatewayError with the gateway's own code, as `post` does."""
        params = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}
        return remote.ask(self.url, self.key, path, params=params)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return remote.ask(self.url, self.key, path, method="POST", json=body)


def door(url: str, key_file: Path | None) -> Door:
    """Where to ask, by the options of a verb."""
    key = key_file.read_text().strip() if key_file and key_file.is_file() else ""
    if not key:
        raise BadField("Name with --key-file the file that holds the key for that gateway.", param="key_file")
    return Door(url=url, key=key)
