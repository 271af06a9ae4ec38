"""The world outside, on this machine: a web host that misbehaves on request, and a hub that speaks what huggingface_hub
asks of the real one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass(slots=True)
class Shelf:
    """What a web host gives: path → bytes, redirects, and odd answers. `asked` holds what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")


@dataclass(slots=True)
class Repo:
    """One repository: its commits (sha → files), and where its branches are."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        sha = hashlib.sha1(json.dumps(sorted(files)).encode() + b"".join(files.values())).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha


@dataclass(slots=True)
class FakeHub:
    """Repositories by name. `lies` makes files longer than the hub says they are."""

    repos: dict[str, Repo] = field(default_factory=dict)
    lies: bool = False
    status: int = 0
    asked: list[str] = field(default_factory=list)
    url: str = ""


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Nothing is written."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("content-length", 0)))


@contextlib.contextmanager
def web_host() -> Iterator[Shelf]:
    """A web host on a free port of this machine."""
    shelf = Shelf()

    class Handler(_Quiet):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            shelf.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            if path in shelf.redirects:
                self.answer(302, location=shelf.redirects[path])
            elif path.startswith("/status/"):
                self.answer(int(path.removeprefix("/status/")))
            elif path == "/endless":
                self._endless(b"x" * 65536, 0)
            elif path == "/slow":
                self._endless(b"x", 0.05)
            elif path == "/headless":
                self._headless()
            elif path == "/packed":
                self.answer(200, b"x", content_encoding="gzip")
            elif path == "/claims":
                self.answer(200, b"x", content_length=str(1 << 50))
            elif path in shelf.files:
                self.answer(200, shelf.files[path])
            else:
                self.answer(404)

        def _headless(self) -> None:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nx-letters: ")
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)

        def _endless(self, chunk: bytes, pause_s: float) -> None:
            self.send_response(200)
            self.send_header("connection", "close")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(chunk)
                    time.sleep(pause_s)

    with _serving(Handler) as url:
        shelf.url = url
        yield shelf


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub on a free port of this machine."""
    hub = FakeHub()

    class Handler(_Quiet):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if hub.status:
                self.answer(hub.status)
            elif path.startswith("/api/models/"):
                name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
                self._info(name, revision or "main")
            elif "/resolve/" in path:
                name, _, rest = path[1:].partition("/resolve/")
                sha, _, file = rest.partition("/")
                self._file(name, sha, file)
            else:
                self.answer(404, x_error_code="RepoNotFound")

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"POST {path}")
            raw = self.body()
            if path == "/api/repos/create":
                said = json.loads(raw)
                name = f"{said['organization']}/{said['name']}" if said.get("organization") else said["name"]
                hub.repos.setdefault(
                    name, Repo(private=said.get("visibility") == "private" or said.get("private") is True)
                )
                self._json({"url": f"{hub.url}/{name}", "name": name})
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(raw)["files"]
                ]
                self._json({"files": files})
            elif "/commit/" in path:
                name, _, branch = path.removeprefix("/api/models/").partition("/commit/")
                written: dict[str, bytes] = {}
                for line in raw.splitlines():
                    found = json.loads(line)
                    if found["key"] == "file":
                        written[found["value"]["path"]] = base64.b64decode(found["value"]["content"])
                sha = hub.repos[name].commit(written, branch)
                self._json({"commitUrl": f"{hub.url}/{name}/commit/{sha}", "commitOid": sha})
            else:
                self.answer(404)

        def _info(self, name: str, revision: str) -> None:
            repo = hub.repos.get(name)
            if repo is None:
                self.answer(404, x_error_code="RepoNotFound")
                return
            sha = repo.branches.get(revision, revision)
            if sha not in repo.commits:
                self.answer(404, x_error_code="RevisionNotFound")
                return
            siblings = [{"rfilename": n, "size": len(c), "blobId": "b"} for n, c in repo.commits[sha].items()]
            self._json({"id": name, "modelId": name, "sha": sha, "private": repo.private, "siblings": siblings})

        def _file(self, name: str, sha: str, file: str) -> None:
            content = hub.repos[name].commits.get(sha, {}).get(file)
            if content is None:
                self.answer(404, x_error_code="EntryNotFound")
                return
            if hub.lies:
                content += b"x" * (4 << 20)
            self.answer(200, content, etag=f'"{hashlib.sha1(content).hexdigest()}"', x_repo_commit=sha)

        def _json(self, found: object) -> None:
            self.answer(200, json.dumps(found).encode(), content_type="application/json")

    with _serving(Handler) as url:
        hub.url = url
        yield hub


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
