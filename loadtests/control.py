"""The gateway's control routes and its engine's list, as an outsider asks for them."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.stack import Up, call, get

_BOUNDARY = "graftline-boundary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a control call said. `seconds` is how long it took, `began` and `ended` are unix times."""

    status: int
    document: Mapping[str, Any]
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def code(self) -> str:
        """The error's code; empty when it went well."""
        error = self.document.get("error") or {}
        return str(error.get("code") or "")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Codes of all reasons that a refusal gives, the error's own first."""
        error = self.document.get("error") or self.document
        told = error.get("reasons") or ()
        return tuple(code for code in (self.code, *(str(reason.get("code")) for reason in told)) if code)


def upload(up: Up, name: str, archive: bytes, *, wait_s: float = 60, **fields: str) -> Answered:
    """Register an archive under `name`."""
    parts = b""
    for field, value in {"name": name, "wait_s": f"{wait_s:g}", **fields}.items():
        parts += f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
    parts += f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'.encode()
    body = parts + archive + f"\r\n--{_BOUNDARY}--\r\n".encode()
    headers = {"Authorization": f"Bearer {up.key}", "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=wait_s + 120)
    began = time.time()
    try:
        connection.request("POST", "/v1/adapters", body, headers)
        answer = connection.getresponse()
        return _answered(answer.status, answer.read(), began)
    finally:
        connection.close()


def promote(up: Up, name: str, number: int, **fields: object) -> Answered:
    return _post(up, f"/v1/adapters/{name}/promote", {"number": number, "why": "loadtest", **fields})


def rollback(up: Up, name: str) -> Answered:
    return _post(up, f"/v1/adapters/{name}/rollback", {"why": "loadtest"})


def retire(up: Up, name: str, number: int) -> Answered:
    began = time.time()
    status, body = call("DELETE", f"{up.url}/v1/adapters/{name}/{number}", None, up.key)
    return _answered(status, body, began)


def version(up: Up, name: str, number: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(get(f"{up.url}/v1/adapters/{name}/{number}", up.key)[1])
    return found


def versions(up: Up, name: str = "") -> list[Mapping[str, Any]]:
    query = f"?name={name}" if name else ""
    found: list[Mapping[str, Any]] = json.loads(get(f"{up.url}/v1/adapters{query}", up.key, 60)[1])["data"]
    return found


def metric(up: Up, name: str) -> float:
    """A metric of the gateway's, summed over its labels."""
    lines = get(f"{up.url}/metrics", timeout_s=30)[1].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((name + "{", name + " ")))


def engine_side(registered: Answered) -> str:
    """The name under which the engine knows a registered version."""
    digest = str(registered.document["digest"]).removeprefix("sha256:")
    return f"{registered.document['name']}@{digest[:16]}"


def engine_metric(up: Up, name: str) -> float:
    lines = engine_get(up, "/metrics").decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((name + "{", name + " ")))


def engine_adapters(up: Up) -> frozenset[str]:
    """Names of the adapters that the engine itself lists; empty while it cannot be asked."""
    try:
        cards = json.loads(engine_get(up, "/v1/models"))["data"]
    except (OSError, http.client.HTTPException, ValueError):
        return frozenset()
    return frozenset(card["id"] for card in cards if card["parent"] is not None)


def engine_get(up: Up, path: str) -> bytes:
    """GET from the local engine, on the socket that only its owner can open."""
    connection = _Unix(up.socket)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _post(up: Up, path: str, body: object) -> Answered:
    began = time.time()
    status, data = call("POST", up.url + path, body, up.key)
    return _answered(status, data, began)


def _answered(status: int, body: bytes, began: float) -> Answered:
    ended = time.time()
    try:
        document = json.loads(body)
    except ValueError:
        document = {"error": {"code": f"no JSON: {body[:200]!r}"}}
    return Answered(status=status, document=document, began=began, ended=ended)
