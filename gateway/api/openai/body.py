"""Reading a request's body: within its size and time, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from gateway.errors import BadRequest, ClientTimeout, TooLarge

Receive = Callable[[], Awaitable[dict[str, Any]]]


class ClientLeft(Exception):
    """The client closed its connection; nobody is there to answer."""


async def read(
    receive: Receive, headers: Iterable[tuple[bytes, bytes]], *, bytes_max: int, timeout_s: float | None
) -> bytes:
    """The whole body, in `timeout_s` seconds; None for one that has already arrived, which is spared the timer.

    Raises `TooLarge` before reading what is announced too large, `ClientTimeout`, `ClientLeft`.
    """
    for name, value in headers:
        if name == b"content-length" and (not value.isdigit() or int(value) > bytes_max):
            raise _too_large(bytes_max)
        if name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise BadRequest("Compressed request bodies are not taken; send the JSON as it is.")
    message = await (_within(receive, timeout_s) if timeout_s is not None else receive())
    if message["type"] == "http.disconnect":
        raise ClientLeft
    if not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        if len(whole) > bytes_max:
            raise _too_large(bytes_max)
        return whole
    assert timeout_s is not None
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    parts, size = [message["body"]], len(message["body"])
    while message.get("more_body"):
        message = await _within(receive, until - loop.time())
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > bytes_max:
            raise _too_large(bytes_max)
    return b"".join(parts)


async def _within(receive: Receive, timeout_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_s):
            message = await receive()
    except TimeoutError:
        raise ClientTimeout("The request's body did not arrive in time.") from None
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than the {bytes_max} bytes that are allowed.")
