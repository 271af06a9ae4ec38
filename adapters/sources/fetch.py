"""From a source string to a flat folder: read what it means, ask whether it is allowed, bring it here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.artifacts.archive import unpacked
from adapters.errors import BadSource, Unavailable, shown
from adapters.sources import bucket, hub, web
from adapters.sources.rules import Meter, Progress, SourceRules, bucket_allowed, folder_allowed, no_progress
from adapters.sources.spelling import Bucket, Hub, Local, Web, parse


def pinned(source: str, rules: SourceRules) -> str:
    """The same source, with a branch or tag of the hub replaced by the commit that it names now.

    Raises BadSource, SourceUnavailable, HubOffline.
    """
    found = parse(source)
    if isinstance(found, Hub):
        fixed = hub.resolve(found, rules)
        return f"hub:{fixed.repo}@{fixed.revision}"
    return source


@contextmanager
def fetched(source: str, rules: SourceRules, progress: Progress = no_progress) -> Iterator[Path]:
    """A flat folder with the adapter's files; what was made for it is removed at the end. A folder is given as it is:
    nothing may be written there.

    Raises BadSource, SourceRefused, SourceUnavailable, HubOffline, MissingExtra, BadArchive, TooLarge, Unavailable.
    """
    found = parse(source)
    if isinstance(found, Local):
        folder_allowed(found.path, rules)  # first: what is not allowed is not looked at
    if isinstance(found, Local) and _is(found.path, Path.is_dir):
        yield found.path
        return
    with _scratch(rules) as scratch:
        brought = _brought(found, scratch, rules, progress)
        if brought.is_dir():
            yield brought
            return
        with unpacked(brought, rules.limits, scratch=rules.scratch) as folder:
            yield folder


def _brought(found: Local | Bucket | Web | Hub, scratch: Path, rules: SourceRules, progress: Progress) -> Path:
    """The archive or the folder that the source gave."""
    meter = Meter(rules, progress)
    if isinstance(found, Local):
        if not _is(found.path, Path.is_file):
            raise BadSource(f"{shown(str(found.path))} is neither a folder nor an archive on this machine.")
        return found.path
    if isinstance(found, Bucket):
        bucket_allowed(found.bucket, rules)
        return bucket.download(found, scratch, rules, meter)
    if isinstance(found, Web):
        try:
            web.download(found, scratch / "archive", rules, meter)
        except OSError as error:
            raise Unavailable(f"The download could not be kept: {error.strerror or error}.") from error
        return scratch / "archive"
    hub.download(hub.resolve(found, rules), scratch, rules, meter)
    return scratch


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Whether the path is of this kind. Raises BadSource where this process may not look, or no path is so long."""
    try:
        return kind(path)
    except OSError as error:
        raise BadSource(f"{shown(str(path))} cannot be read: {error.strerror}.") from error


@contextmanager
def _scratch(rules: SourceRules) -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="graftline-source-", dir=rules.scratch)
    except OSError as error:
        raise Unavailable(f"There is no room for a download: {error.strerror or error}.") from error
    with folder as name:
        yield Path(name)
