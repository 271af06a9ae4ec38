"""Registers at a gateway elsewhere, over the same route that everybody uses; a folder is packed while it is sent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from adapters.artifacts.pack import Entry, counted, entries, tar, tar_size
from adapters.checks.files import check_files
from adapters.errors import Findings
from adapters.limits import Limits
from gateway.errors import GatewayError

_CONNECT_S = 10.0
_SILENCE_S = 120.0


def send_folder(
    url: str, key: str, folder: Path, fields: Mapping[str, str], progress: Callable[[int, int | None], None]
) -> dict[str, Any]:
    """Send a folder as an archive that never lies on a disk or whole in memory; returns what the gateway says.

    Raises Rejected for files that no gateway takes, and GatewayError with the gateway's own code.
    """
    findings = Findings()
    check_files(folder, Limits(), findings)
    findings.done()
    return _send(url, key, entries(folder), None, fields, progress)


def send_archive(
    url: str, key: str, archive: Path, fields: Mapping[str, str], progress: Callable[[int, int | None], None]
) -> dict[str, Any]:
    """Send an archive as it is."""
    return _send(url, key, (), archive, fields, progress)


def send_source(url: str, key: str, source: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Let the gateway fetch the source itself."""
    return _answer(url, key, fields, json=json.dumps({**fields, "source": source}))


def _send(
    url: str,
    key: str,
    packed: Sequence[Entry],
    archive: Path | None,
    fields: Mapping[str, str],
    progress: Callable[[int, int | None], None],
) -> dict[str, Any]:
    boundary = uuid.uuid4().hex
    head, tail = _around(boundary, fields)
    size = archive.stat().st_size if archive else tar_size(packed)
    done = 0

    def note(sent: int) -> None:
        nonlocal done
        done += sent
        progress(done, size)

    def body() -> Iterator[bytes]:
        yield head
        yield from counted(_read(archive) if archive else tar(packed), note)
        yield tail

    headers = {
        "content-type": f"multipart/form-data; boundary={boundary}",
        "content-length": str(len(head) + size + len(tail)),
    }
    return _answer(url, key, fields, content=body(), headers=headers)


def _around(boundary: str, fields: Mapping[str, str]) -> tuple[bytes, bytes]:
    """What stands before the archive's bytes in the body, and after them."""
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="adapter.tar"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    )
    return "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()


def _read(archive: Path) -> Iterator[bytes]:
    with archive.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _answer(
    url: str,
    key: str,
    fields: Mapping[str, Any],
    *,
    json: str = "",
    content: Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
    timeout = httpx.Timeout(_SILENCE_S + float(fields.get("wait_s", 0)), connect=_CONNECT_S)
    try:
        return _read_answer(
            httpx.post(f"{url.rstrip('/')}/v1/adapters", content=content or json, headers=sent, timeout=timeout)
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise GatewayError(
            f"{url} gave no answer that can be read: {type(error).__name__}.", code="gateway_away"
        ) from error


def ask(
    url: str,
    key: str,
    path: str,
    *,
    method: str = "GET",
    json: Mapping[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """One call of a control route elsewhere. Raises GatewayError with the gateway's own code."""
    timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
    sent = {"authorization": f"Bearer {key}"}
    try:
        answer = httpx.request(
            method, f"{url.rstrip('/')}{path}", json=json, params=params, headers=sent, timeout=timeout
        )
        return _read_answer(answer)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise GatewayError(
            f"{url} gave no answer that can be read: {type(error).__name__}.", code="gateway_away"
        ) from error


def _read_answer(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    if answer.status_code >= 400:
        said = found.get("error", {})
        raise GatewayError(str(said.get("message", answer.text[:400])), code=str(said.get("code", answer.status_code)))
    return found
