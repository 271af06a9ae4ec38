"""The ASGI app: inference and health straight from here, everything else through the control plane."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.answering import PATHS
from gateway.api import errors
from gateway.api.health import Health
from gateway.api.openai.endpoint import Inference
from gateway.api.openai.exchange import Receive, Send
from gateway.api.openai.parse import head
from gateway.errors import ClientTimeout, TooLarge, WrongMethod
from gateway.routing.ids import wire_id
from gateway.settings import Settings
from gateway.values import Endpoint

_CONTROL_BYTES_MAX = 1 << 20
_FORM_BYTES_MAX = 64 << 10  # of a form, besides its file
_ADAPTERS, _FILES = "/v1/adapters", "/v1/files"
_STORED = PATHS["chat"]  # read by GET


class Root:
    """Routes by exact path; the hot paths come first and touch no framework."""

    def __init__(self, *, inference: Inference, health: Health, control: Any, settings: Settings) -> None:
        self._inference, self._health, self._control, self._settings = inference, health, control, settings
        self._hot: dict[str, Endpoint] = {path: endpoint for endpoint, path in PATHS.items()}  # type: ignore[misc]

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _decline(scope, receive, send)
            return
        path = scope["path"]
        endpoint = self._hot.get(path)
        if endpoint is not None and scope["method"] == "POST":
            await self._inference(scope, receive, send, endpoint)
        elif path in self._health.paths:
            await self._health(scope, receive, _named(scope, send))
        elif endpoint is not None and not (path == _STORED and scope["method"] == "GET"):
            allowed = "GET, POST" if path == _STORED else "POST"
            error = WrongMethod(f"{path} takes {allowed}, not {scope['method'][:16]}.")
            await refuse(_named(scope, send), error, (b"allow", allowed.encode()))
        else:
            await self._to_control(scope, receive, _named(scope, send))

    async def _to_control(self, scope: Any, receive: Receive, send: Send) -> None:
        uploads = {_ADAPTERS: self._settings.upload_bytes_max, _FILES: self._settings.file_bytes_max + _FORM_BYTES_MAX}
        upload = scope["path"] in uploads and scope["method"] == "POST"
        bytes_max = uploads[scope["path"]] if upload else _CONTROL_BYTES_MAX
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > bytes_max):
                await refuse(send, _too_large(bytes_max), (b"connection", b"close"))
                return
        now, limit_s = asyncio.get_running_loop().time, self._settings.body_timeout_s
        read, whole, until = 0, False, now() + limit_s

        async def counted() -> dict[str, Any]:
            nonlocal read, whole
            try:
                async with asyncio.timeout_at(None if whole else now() + limit_s if upload else until):
                    message = await receive()
            except TimeoutError:
                raise ClientTimeout("The request's body did not arrive in time.") from None
            whole = not message.get("more_body")
            read += len(message.get("body", b""))
            if read > bytes_max:
                raise _too_large(bytes_max)
            return message

        await self._control(scope, counted, send)


async def refuse(send: Send, error: Exception, *headers: errors.Header) -> None:
    """Answer with an error that was met outside of any route."""
    data = errors.body(error)
    head = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(data)),
        *errors.headers(error),
        *headers,
    ]
    await send({"type": "http.response.start", "status": errors.status(error)[0], "headers": head})
    await send({"type": "http.response.body", "body": data})


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than the {bytes_max} bytes that are allowed.")


def _named(scope: Any, send: Send) -> Send:
    """Every answer carries a request id: the client's, where it sent a sound one."""
    request_id = head(scope["headers"]).request_id or f"req-{wire_id()}".encode()
    scope["graftline.request_id"] = request_id.decode()

    async def named(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
        await send(message)

    return named


async def _decline(scope: Any, receive: Receive, send: Send) -> None:
    """Lifespan is run by the process, not by the server; there are no web sockets."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})
