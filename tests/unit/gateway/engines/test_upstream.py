"""The client against real sockets: reuse, replacement of stale connections, timeouts, TLS, leaving early."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.engines.errors import EngineBroke, EngineTimeout, EngineUnreachable
from gateway.engines.upstream import Address, Upstream, parse_url

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(path: Path, handler: Handler) -> AsyncIterator[Upstream]:
    """A client of a server on a unix socket that does what `handler` says for each connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(handle, path)
    upstream = Upstream(f"unix:{path}", name="e1")
    try:
        yield upstream
    finally:
        upstream.close()
        server.close()
        await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.split(b":")[1]))
    return head


async def get(upstream: Upstream, *, head_timeout_s: float = 2.0, body: bytes = b"{}") -> bytes:
    answer = await upstream.request("POST", "/v1/x", body, head_timeout_s=head_timeout_s)
    return await answer.read(1 << 24)


async def test_a_request_is_sent_as_http_with_its_headers(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(OK)

    async with serving(tmp_path / "s", handler) as upstream:
        answer = await upstream.request("POST", "/v1/x", b"{}", ((b"x-request-id", b"r1"),), head_timeout_s=2)
        assert await answer.read(10) == b"ok"
        await (await upstream.request("GET", "/health", head_timeout_s=2)).read(10)
    assert seen == [
        b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"x-request-id: r1\r\ncontent-length: 2\r\n\r\n{}",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ]


async def test_one_connection_serves_requests_in_turn_and_more_serve_them_at_once(tmp_path: Path) -> None:
    accepted = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        while True:
            await read_request(reader)
            await asyncio.sleep(0)
            writer.write(OK)

    async with serving(tmp_path / "s", handler) as upstream:
        for _ in range(5):
            await get(upstream)
        assert (accepted, upstream.connections) == (1, 1)
        await asyncio.gather(*(get(upstream) for _ in range(5)))
        assert (accepted, upstream.connections) == (5, 5)


async def test_a_connection_that_the_engine_closed_meanwhile_is_replaced(tmp_path: Path) -> None:
    accepted = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await read_request(reader)
        writer.write(OK)
        if accepted == 1:
            await read_request(reader)  # closes without a byte of answer to the second request

    async with serving(tmp_path / "s", handler) as upstream:
        assert await get(upstream) == b"ok"
        assert await get(upstream) == b"ok"
    assert accepted == 2


async def test_an_engine_that_answers_no_connection_is_tried_no_third_time(tmp_path: Path) -> None:
    accepted = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await read_request(reader)

    async with serving(tmp_path / "s", handler) as upstream:
        with pytest.raises(EngineUnreachable):
            await get(upstream)
    assert accepted == 1


async def test_nobody_at_the_address_is_an_engine_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(EngineUnreachable):
        await get(Upstream(f"unix:{tmp_path / 'nobody'}"))
    with pytest.raises(EngineUnreachable):
        await get(Upstream("http://127.0.0.1:1"))


async def test_no_head_in_time_is_a_timeout_and_the_connection_goes(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with serving(tmp_path / "s", handler) as upstream:
        with pytest.raises(EngineTimeout):
            await get(upstream, head_timeout_s=0.02)
        assert upstream.connections == 0


async def test_a_caller_that_is_cancelled_takes_the_connection_along(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()
        left.set()

    async with serving(tmp_path / "s", handler) as upstream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await get(upstream)
        async with asyncio.timeout(2):
            await left.wait()


async def test_closing_the_client_ends_answers_in_progress(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK[:-1])
        await reader.read()

    async with serving(tmp_path / "s", handler) as upstream:
        answer = await upstream.request("POST", "/v1/x", b"{}", head_timeout_s=2)
        upstream.close()
        with pytest.raises(EngineBroke):
            await answer.read(10)
        with pytest.raises(EngineUnreachable):
            await get(upstream)


async def test_bodies_of_megabytes_go_both_ways(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = (await read_request(reader)).partition(b"\r\n\r\n")[2]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        await reader.read()

    async with serving(tmp_path / "s", handler) as upstream:
        sent = bytes(range(256)) * 20_000
        assert await get(upstream, body=sent) == sent


async def test_an_old_idle_connection_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        while True:
            await read_request(reader)
            writer.write(OK)

    async with serving(tmp_path / "s", handler) as upstream:
        await asyncio.gather(*(get(upstream) for _ in range(3)))
        for connection in upstream._idle:
            connection.freed_at -= 100
        await get(upstream)
        assert (accepted, upstream.connections) == (4, 1)


async def test_what_would_split_a_request_is_not_sent() -> None:
    upstream = Upstream("unix:/nowhere")
    for path in ("no-slash", "/a b", "/a\r\nx: y", "/ä"):
        with pytest.raises(ValueError, match="cannot be sent"):
            await upstream.request("GET", path, head_timeout_s=1)
    with pytest.raises(ValueError, match="line break"):
        await upstream.request("GET", "/", b"", ((b"x", b"a\r\nb: c"),), head_timeout_s=1)


@pytest.mark.slow
async def test_tls_is_spoken_and_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(certificate, key)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    trusting = Upstream(url, tls=ssl.create_default_context(cafile=str(certificate)))
    try:
        assert await get(trusting) == b"ok"
        with pytest.raises(EngineUnreachable, match="certificate"):
            await get(Upstream(url))
    finally:
        trusting.close()
        server.close()
        await asyncio.sleep(0.01)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "engine")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8001", Address(host="127.0.0.1", port=8001)),
        ("http://engine", Address(host="engine", port=80)),
        ("https://engine/a/", Address(host="engine", port=443, tls=True, prefix="/a")),
        ("http://[::1]:9", Address(host="::1", port=9)),
        ("unix:/run/e.sock", Address(host="localhost", unix_path="/run/e.sock")),
        ("unix:///run/e.sock", Address(host="localhost", unix_path="/run/e.sock")),
    ],
)
def test_urls_are_read(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url", ["", "engine:8000", "ftp://x", "http://", "unix:relative", "http://u:p@x", "http://x?a=1", "http://x:port"]
)
def test_urls_that_cannot_be_used_say_so(url: str) -> None:
    with pytest.raises(ValueError, match=r"engine URL|Port"):
        parse_url(url)
