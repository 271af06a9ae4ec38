"""Content parts: every type passes, but remote URLs only from hosts on the operator's list. Pure.

The engine fetches what a URL names, from inside the private network: an open list would let any caller make it read
internal addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import BadField

#: Where the URL sits in each kind of part that has one.
_URL_PARTS = ("image_url", "audio_url", "video_url", "file", "input_image", "input_video", "input_audio", "input_file")


def check(messages: Any, hosts: Collection[str], where: str = "messages") -> None:
    """Raise `BadField` for the first media URL that the engine must not fetch."""
    for path, url in urls(messages, where):
        if url[:5] == "data:":
            continue
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise BadField(f"'{path}' must be a data: or http(s) URL.", param=path)
        if (parts.hostname or "") not in hosts:
            raise BadField(
                f"'{path}' names the host {str(parts.hostname)[:100]!r}, which is not on this gateway's list of media "
                "hosts; send the content as a data: URL, or ask the operator to add it to `media_hosts`.",
                param=path,
            )


def urls(messages: Any, where: str = "messages") -> Iterator[tuple[str, str]]:
    """(path, URL) of every media part."""
    if type(messages) is not list:
        return
    for i, message in enumerate(messages):
        content = message.get("content") if type(message) is dict else None
        if type(content) is not list:
            continue
        for j, part in enumerate(content):
            if type(part) is not dict:
                continue
            for key in _URL_PARTS:
                yield from _in(part.get(key), f"{where}.{i}.content.{j}.{key}")
            for key in ("url", "file_url"):
                yield from _in(part.get(key), f"{where}.{i}.content.{j}.{key}")


def _in(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if type(value) is str:
        yield path, value
    elif type(value) is dict:
        for key in ("url", "file_url", "image_url"):
            if type(value.get(key)) is str:
                yield f"{path}.{key}", value[key]
