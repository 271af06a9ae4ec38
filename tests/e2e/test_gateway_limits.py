"""Limits on size and time: too large, too slow, not HTTP at all, and nobody else notices."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.e2e.houses import BASE, House, asked, raw

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"


def head(house: House, *lines: str, path: str = CHAT, method: str = "POST") -> bytes:
    found = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {house.key}", *lines]
    return "\r\n".join(found).encode() + b"\r\n\r\n"


def test_an_answer_carries_who_made_it(house: House) -> None:
    answer = house.chat("hello")
    assert answer.status_code == 200
    assert answer.headers["x-graftline-adapter"] == BASE
    assert answer.headers["x-graftline-replica"] == "engine-0"
    assert answer.headers["x-request-id"].startswith("req-")
    assert answer.headers["openai-processing-ms"].isdigit()
    body = answer.json()
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == BASE
    assert body["choices"][0]["message"]["content"].startswith(BASE)


def test_a_hundred_megabytes_are_refused_before_they_are_sent(house: House) -> None:
    said = raw(house.url, head(house, "Content-Length: 104857600") + b"x" * (1 << 20))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in said


def test_a_hundred_megabytes_in_chunks_are_refused_on_the_way(house: House) -> None:
    chunk = b"%x\r\n" % (1 << 20) + b"x" * (1 << 20) + b"\r\n"
    said = raw(house.url, head(house, "Transfer-Encoding: chunked") + chunk * 100 + b"0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_client_library_gets_to_read_why_its_hundred_megabytes_were_refused(house: House) -> None:
    with house.client() as client:
        answer = client.post(CHAT, content=b"x" * (100 << 20))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_large_body_on_a_control_route_is_refused_too(house: House) -> None:
    with house.client() as client:
        answer = client.post(
            "/v1/keys", content=iter([b"x" * (1 << 20)] * 3), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("path", [CHAT, "/v1/keys", "/v1/adapters/x/promote"])
def test_a_body_that_never_comes_is_not_waited_for(house: House, path: str) -> None:
    began = time.monotonic()
    said = raw(house.url, head(house, "Content-Type: application/json", "Content-Length: 100", path=path) + b"{")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in said
    assert time.monotonic() - began < 4


def test_a_head_that_drips_is_cut_off(house: House) -> None:
    host, _, port = house.url.removeprefix("http://").partition(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            for byte in b"POST /v1/chat/completions HTTP/1.1\r\nHost: slow.example\r\n":
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            pass
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 5


def test_a_connection_that_says_nothing_is_closed(house: House) -> None:
    began = time.monotonic()
    assert raw(house.url, b"") == b""
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * 400_000,
    ],
)
def test_an_oversized_head_is_refused(house: House, data: bytes) -> None:
    said = raw(house.url, data)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"request_head_too_large"' in said


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_one_typed_answer(house: House, data: bytes) -> None:
    said = raw(house.url, data)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_endless_trailers_are_cut_off(house: House) -> None:
    body = b"2\r\n{}\r\n0\r\n"
    data = head(house, "Transfer-Encoding: chunked") + body + b"x: " + b"y" * (4 << 20)
    said = raw(house.url, data)
    assert b'"code":"invalid_http"' in said or said == b""


def test_an_upgrade_that_nobody_asked_for_is_an_ordinary_request(house: House) -> None:
    with house.client() as client:
        answer = client.post(CHAT, json=asked(), headers={"connection": "upgrade", "upgrade": "h2c"})
    assert answer.status_code == 200


def test_compressed_bodies_are_declined(house: House) -> None:
    with house.client() as client:
        answer = client.post(CHAT, content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert answer.status_code == 400


def test_bad_input_disturbs_nobody_else(house: House) -> None:
    host, _, port = house.url.removeprefix("http://").partition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"POST / HTTP/1.1\r\nHo")
    try:
        began = time.monotonic()
        assert house.chat().status_code == 200
        assert time.monotonic() - began < 1
    finally:
        for connection in slow:
            connection.close()
