"""An archive from a web host on the list. Each address that is connected to was looked at first.

A redirect is a new URL from a stranger: it is checked like the first one. A host that only a wildcard allows is
connected to by the very address that was found to be public, so that its name cannot mean another one a moment later.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from adapters.errors import BadSource, SourceRefused, SourceUnavailable, TooLarge, shown
from adapters.sources.rules import Meter, SourceRules, host_allowed
from adapters.sources.spelling import Web, web

REDIRECTS_MAX = 5
_CONNECT_S = 10.0
_READ_S = 30.0
#: So that the meter, too, knows by then that the time is over.
_CUT_LATER_S = 0.05

#: IPv6 addresses that stand for IPv4 ones, which may be inside, by translators that a network may have.
_NAT64, _LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48")
_OLD_IPV4 = ipaddress.IPv6Network("::/96")

#: (host, port) → its addresses
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One request: where to connect to, and how to name the host there."""

    url: str
    headers: Mapping[str, str]
    extensions: Mapping[str, str]


def addresses(host: str, port: int) -> Sequence[str]:
    """What the machine's resolver says."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def plan(target: Web, rules: SourceRules, resolve: Resolve = addresses) -> Plan:
    """How to reach the target. Raises SourceRefused for a host that is not on the list, or has an address inside."""
    if host_allowed(target, rules):
        return Plan(url=target.url, headers={}, extensions={})
    try:
        found = resolve(target.host, target.port)
    except OSError as error:
        raise SourceUnavailable(f"The host {shown(target.host)} has no address: {error.strerror or error}.") from error
    for address in found:
        if not _is_public(address):
            raise SourceRefused(
                f"The host {shown(target.host)} has the address {address}, which is not a public one. Only a host that "
                "is spelt out in `source_hosts` may have such an address."
            )
    if not found:
        raise SourceUnavailable(f"The host {shown(target.host)} has no address.")
    return _to_address(target, found[0])


def download(target: Web, path: Path, rules: SourceRules, meter: Meter, resolve: Resolve = addresses) -> None:
    """Write what the URL gives to `path`. Raises SourceRefused, SourceUnavailable, BadSource, TooLarge."""
    timeout = httpx.Timeout(_READ_S, connect=_CONNECT_S)
    line = _Line()
    client = httpx.Client(timeout=timeout, trust_env=False, follow_redirects=False)
    with client, line.cut_after(meter.left_s):
        for _ in range(REDIRECTS_MAX + 1):
            step = plan(target, rules, resolve)
            headers = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "graftline", **step.headers}
            try:
                extensions = {**step.extensions, "trace": line.trace}
                with client.stream("GET", step.url, headers=headers, extensions=extensions) as answer:
                    if answer.is_redirect:
                        target = _redirected(target, answer.headers.get("location", ""))
                        continue
                    _receive(answer, target, path, meter)
                    return
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                meter.count(0)  # says so where the time is over
                why = type(error).__name__  # its text may repeat the URL, and with it a credential
                raise SourceUnavailable(f"{shown(target.host)} could not be read: {why}. Try again later.") from None
    raise BadSource(f"The source was redirected more than {REDIRECTS_MAX} times. Name the last URL itself.")


class _Line:
    """The connection in use, which can be cut: a host that sends its head letter by letter is never silent for long
    enough to meet a timeout."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._over = False

    def trace(self, event: str, about: Mapping[str, Any]) -> None:
        """What the client tells of its connections."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = about["return_value"].get_extra_info("socket")
            if self._over:
                self._cut()

    @contextmanager
    def cut_after(self, seconds: float) -> Iterator[None]:
        timer = Timer(seconds + _CUT_LATER_S, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        self._over = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _receive(answer: httpx.Response, target: Web, path: Path, meter: Meter) -> None:
    if answer.status_code != 200:
        said = f"{shown(target.host)} answered {answer.status_code} {shown(answer.reason_phrase, quote=False)}"
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            raise SourceUnavailable(f"{said}. Try again later.")
        raise BadSource(f"{said}. Does the URL name an archive, and does it carry what the host asks for?")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise BadSource(f"{shown(target.host)} packed its answer although it was asked not to.")
    length = answer.headers.get("content-length", "")
    if length and (not length.isdecimal() or len(length) > 18):
        raise TooLarge(f"{shown(target.host)} announces {shown(length)} bytes.")
    meter.expect(int(length) if length else None)
    with path.open("wb") as file:
        for chunk in answer.iter_raw():  # as it comes: waiting for a full one would let a slow host stop the clock
            meter.count(len(chunk))
            file.write(chunk)
    meter.count(0)  # what was cut may look like an end


def _redirected(before: Web, location: str) -> Web:
    try:
        after = web(urljoin(before.url, location))
    except ValueError:
        raise BadSource("The source was redirected to something that is no URL.") from None
    if before.scheme == "https" and after.scheme == "http":
        raise SourceRefused(f"{shown(before.host)} redirects from https to http, which is not followed.")
    return after


def _to_address(target: Web, address: str) -> Plan:
    """The same request, to this address. TLS still asks for the host's own certificate."""
    parts = urlsplit(target.url)
    spot = f"[{address}]" if ":" in address else address
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    url = parts._replace(netloc=f"{user}{spot}:{target.port}").geturl()
    usual = target.port == (443 if target.scheme == "https" else 80)
    host = target.host if usual else f"{target.host}:{target.port}"
    return Plan(url=url, headers={"host": host}, extensions={"sni_hostname": target.host})


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local or found in _OLD_IPV4 or found in _LOCAL_NAT64:
            return False
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not _is_public(str(inner)):
            return False
    return found.is_global and not found.is_multicast
