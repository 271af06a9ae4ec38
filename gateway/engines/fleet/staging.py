"""Adapters are read, compared with their digest and laid ready in memory before an engine is told to load them.

An engine reads inside its loop, where every stream waits for it: from a RAM-backed copy that takes milliseconds,
whatever the disk. The engine is told a link in `stage/`, which shows the copy during the load and the artifact ever
after: an engine that evicts and reads again must always find the files. Blocking; run it in threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adapters.artifacts.local import Artifacts, digest_folder
from adapters.errors import AdapterError, DigestMismatch, NotFound, Unavailable
from adapters.signing import Signatures
from adapters.values import Version

#: At most so many are verified ahead of their loads, and one that is larger than this goes alone.
AHEAD_MAX = 16
AHEAD_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Where the engine finds an adapter, and what it took to get it there. Give it back with `settle`."""

    digest: str
    path: str
    seconds: float
    in_memory: bool


class Staging:
    """`folder` holds the links, `memory` the copies, up to `bytes_max` at once; without them engines read artifacts."""

    def __init__(
        self,
        artifacts: Artifacts,
        *,
        folder: Path | None = None,
        memory: Path | None = None,
        bytes_max: int = 0,
        signatures: Signatures | None = None,
    ) -> None:
        self._artifacts, self._signatures = artifacts, signatures
        self._folder = folder if bytes_max else None
        self._memory = memory if self._folder else None
        self._bytes_max = bytes_max
        self._users: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._turn = threading.Lock()  # replicas stage in threads of their own, often the same adapter

    def sweep(self) -> None:
        """Delete copies that a worker left behind when it died, after pointing their links at the artifacts. For the
        worker on duty, before its first load."""
        if self._folder is None:
            return
        with _disk("prepare the staging folders"):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for link in sorted(self._folder.iterdir()):
                artifact = self._artifacts.root / link.name
                if link.name.startswith(".") or not artifact.is_dir():
                    link.unlink()
                elif link.readlink() != artifact:
                    self._point(f"sha256:{link.name}", artifact)
        if self._memory is not None:
            shutil.rmtree(self._memory, ignore_errors=True)

    def stage(self, digest: str) -> Staged:
        """Read everything, compare, and lay it ready. Raises NotFound, DigestMismatch, BadSignature or Unavailable."""
        began = time.monotonic()
        with self._turn, _disk(f"read {digest}"):
            path, in_memory = self._laid(digest)
        return Staged(digest=digest, path=str(path), seconds=time.monotonic() - began, in_memory=in_memory)

    def _laid(self, digest: str) -> tuple[Path, bool]:
        folder = self._artifacts.path(digest)
        copy = self._copied(digest, folder)
        if copy is None:
            self._artifacts.verify(digest)
        if self._signatures is not None:
            self._signatures.verify(copy or folder)
        path = folder
        if self._folder is not None:
            path = self._folder / folder.name
            self._users[digest] = self._users.get(digest, 0) + 1
            self._point(digest, copy or folder)
        return path, copy is not None

    def stage_all(self, digests: Sequence[str]) -> list[Staged | AdapterError]:
        """Each of them, or what was wrong with it."""
        found: list[Staged | AdapterError] = []
        for digest in digests:
            try:
                found.append(self.stage(digest))
            except AdapterError as error:
                found.append(error)
        return found

    def settle(self, staged: Sequence[Staged | AdapterError]) -> None:
        """The loads are over: point the links at the artifacts, and free the memory."""
        if self._folder is None:
            return
        with self._turn:
            for each in staged:
                if isinstance(each, AdapterError):
                    continue
                self._users[each.digest] -= 1
                if self._users[each.digest]:
                    continue  # another replica is loading the same
                del self._users[each.digest]
                self._point(each.digest, self._artifacts.root / each.digest.removeprefix("sha256:"))
                self._free(each.digest)

    def present(self, digest: str) -> bool:
        """Whether the files are where an engine would look for them; their bytes are not read."""
        try:
            return any(self._artifacts.path(digest).glob("*.safetensors"))
        except NotFound:
            return False

    def _copied(self, digest: str, folder: Path) -> Path | None:
        """A verified copy in memory; None where it does not fit."""
        if self._memory is None:
            return None
        copy = self._memory / folder.name
        if digest in self._held:
            return copy
        size = sum(file.stat().st_size for file in folder.iterdir())
        if sum(self._held.values()) + size > self._bytes_max or size > _free_bytes(self._memory):
            return None
        self._held[digest] = size
        try:
            self._memory.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy, symlinks=True)
            copy.chmod(0o700)
            if digest_folder(copy) != digest:
                raise DigestMismatch(
                    f"The files in {folder} are not those that were registered, and must not be loaded. "
                    "Register the original folder again, which mends them."
                )
        except DigestMismatch:
            self._free(digest)
            raise
        except (OSError, shutil.Error):
            self._free(digest)
            return None  # the memory was full after all: the artifact is verified where it is
        return copy

    def _point(self, digest: str, target: Path) -> None:
        assert self._folder is not None
        name = digest.removeprefix("sha256:")
        with _disk(f"stage {digest}"):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            building = self._folder / f".{name}.{os.getpid()}"
            with suppress(FileNotFoundError):
                building.unlink()
            building.symlink_to(target)
            building.replace(self._folder / name)

    def _free(self, digest: str) -> None:
        if self._held.pop(digest, None) is not None and self._memory is not None:
            shutil.rmtree(self._memory / digest.removeprefix("sha256:"), ignore_errors=True)


async def staged_ahead(
    staging: Staging, versions: Sequence[Version]
) -> AsyncGenerator[list[tuple[Version, Staged | AdapterError]]]:
    """Neighbours together. While the caller loads these, the next are laid ready and those before them are given back;
    close it, and all are."""
    loop, parts = asyncio.get_running_loop(), chunks(versions)

    def begin(number: int) -> asyncio.Future[list[Staged | AdapterError]]:
        part = parts[number] if number < len(parts) else []
        return loop.run_in_executor(None, staging.stage_all, [v.digest for v in part])

    coming = begin(0)
    going: asyncio.Future[None] = loop.run_in_executor(None, staging.settle, [])
    try:
        for number, part in enumerate(parts):
            staged = await coming
            coming = begin(number + 1)
            try:
                yield list(zip(part, staged, strict=True))
            finally:
                before, going = going, loop.run_in_executor(None, staging.settle, staged)
                await before
    finally:
        await asyncio.to_thread(staging.settle, await coming)
        await going


def chunks(versions: Sequence[Version]) -> list[list[Version]]:
    """Neighbours that are verified together, ahead of their loads."""
    found: list[list[Version]] = [[]]
    size = 0
    for version in versions:
        if found[-1] and (len(found[-1]) == AHEAD_MAX or size + version.bytes > AHEAD_BYTES):
            found.append([])
            size = 0
        found[-1].append(version)
        size += version.bytes
    return found


def memory_folder(home: Path) -> Path | None:
    """A folder in memory of this installation's own; None where the system has none."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        return None
    name = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]
    folder = shared / f"graftline-{os.getuid()}-{name}"
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.getuid()):
        return None
    return folder


def _free_bytes(folder: Path) -> int:
    there = folder if folder.exists() else folder.parent
    return shutil.disk_usage(there).free // 2  # others use it too


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"The worker could not {what}: {error.strerror or error}.") from error
