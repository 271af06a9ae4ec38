"""Content parts: every type passes, but remote URLs only from hosts on the operator's list. Pure.

The engine fetches what a URL names, from inside the private network: an open list would let any caller make it read
internal addresses. So a URL is looked for at any depth, and one that two parsers could read differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import BadField

#: Where a URL sits, in every kind of content part that has one.
_URLS = frozenset({"audio_url", "file", "file_url", "image_url", "url", "video_url"}) | frozenset(
    {"input_audio", "input_file", "input_image", "input_video"}
)
#: Where answers that a client sends back tell their sources: read by people, fetched by nobody.
_CITED = frozenset({"annotations", "action"})
#: What one parser takes for a part of the host and another for its end.
_ODD = re.compile(r"[\x00-\x20\x7f\\]")


def check(messages: Any, hosts: Collection[str], where: str = "messages") -> None:
    """Raise `BadField` for the first media URL that the engine must not fetch."""
    for path, url in urls(messages, where):
        if url[:5] != "data:":
            _check(path, url, hosts)


def urls(messages: Any, where: str = "messages") -> Iterator[tuple[str, str]]:
    """(path, URL) of every media part."""
    if type(messages) is not list:
        return
    for i, message in enumerate(messages):
        if type(message) is not dict:
            continue
        for name, value in message.items():
            if type(value) in (list, dict) and name not in _CITED:
                yield from _within(value, f"{where}.{i}.{name}")
            elif name in _URLS and type(value) is str:
                yield f"{where}.{i}.{name}", value


def _within(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if type(value) is list:
        for i, item in enumerate(value):
            yield from _within(item, f"{path}.{i}")
    elif type(value) is dict:
        for name, item in value.items():
            if name in _URLS and type(item) is str:
                yield f"{path}.{name}", item
            elif type(item) in (list, dict) and name not in _CITED:
                yield from _within(item, f"{path}.{name}")


def _check(path: str, url: str, hosts: Collection[str]) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise BadField(f"'{path}' is not a URL: {error}.", param=path) from None
    if parts.scheme not in ("http", "https"):
        raise BadField(f"'{path}' must be a data: or http(s) URL.", param=path)
    if _ODD.search(url) or "@" in parts.netloc:
        raise BadField(f"'{path}' must be a URL without spaces, backslashes or user names.", param=path)
    if host not in hosts:
        raise BadField(
            f"'{path}' names the host {host[:100]!r}, which is not on this gateway's list of media hosts; "
            "send the content as a data: URL, or ask the operator to add it to `media_hosts`.",
            param=path,
        )
