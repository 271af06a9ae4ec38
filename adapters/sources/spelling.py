"""What a source string means. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapters.errors import BadSource, shown

FORMS = "a folder, an archive, file:///…, s3://BUCKET/…, https://…, or hub:ORG/NAME@REVISION"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
COMMIT = re.compile(r"[0-9a-f]{40}")

_REPO = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?(?:/[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?)?"
)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """A folder or an archive on this machine."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """An archive in a bucket, or everything directly below a key."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """An archive on a web host. `url` may hold credentials; `told` never shows them."""

    scheme: str
    host: str
    port: int
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A repository of the hub at a revision: a branch, a tag or a commit."""

    repo: str
    revision: str


def parse(source: str) -> Local | Bucket | Web | Hub:
    """Read a source string. Raises BadSource."""
    if not source or len(source) > 4096 or not source.isprintable():
        raise BadSource(f"The source must be {FORMS}.")
    scheme = source.partition(":")[0].lower()
    if scheme == "hub":
        return _hub(source[4:])
    if "://" not in source:
        return Local(path=_path(source))
    if scheme == "file":
        return _file(source)
    if scheme == "s3":
        return _bucket(source[5:])
    if scheme in ("http", "https"):
        return web(source)
    raise BadSource(f"Sources do not begin with {shown(scheme)}. A source is {FORMS}.")


def web(url: str) -> Web:
    """Read an http or https URL; redirects come through here too. Raises BadSource."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        raise BadSource("The source is no URL that can be read.") from None
    if ":" in host:
        host = f"[{host}]"
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or not url.isascii() or "\\" in url:
        raise BadSource("The source is no http or https URL with a host. Write it with ASCII characters only.")
    return Web(scheme=parts.scheme, host=host, port=port or (443 if parts.scheme == "https" else 80), url=url)


def told(source: str) -> str:
    """The source as rows and messages may show it: without what may be a credential (user, query, fragment)."""
    scheme, found, rest = source.partition("://")
    if not found:
        return source
    place = rest.partition("?")[0].partition("#")[0]
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise BadSource(f"{shown(text)} begins with the home of nobody on this machine. Write the path out.") from None


def _hub(text: str) -> Hub:
    repo, _, revision = text.partition("@")
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise BadSource(f"{shown(repo)} is no name on the hub. Write hub:ORG/NAME or hub:ORG/NAME@REVISION.")
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise BadSource(f"{shown(revision)} is no revision. Name a branch, a tag or a commit after the @.")
    return Hub(repo=repo, revision=revision or "main")


def _file(source: str) -> Local:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise BadSource("A file source is file:///absolute/path, on this machine.")
    path = unquote(parts.path)
    if not path.isprintable():
        raise BadSource("A file source is file:///absolute/path, in printable characters.")
    return Local(path=Path(path))


def _bucket(rest: str) -> Bucket:
    bucket, _, key = rest.partition("/")
    key = key.rstrip("/")
    if not _BUCKET.fullmatch(bucket) or not key or len(key) > 1024 or any(c in key for c in "?#*[]\\"):
        raise BadSource("An S3 source is s3://BUCKET/KEY: an archive, or the prefix under which the files lie.")
    return Bucket(bucket=bucket, key=key)
