"""Moves spooled lines into the store, exactly once: rows and the offset that covers them are committed together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monitoring.records.disk import Disk
from monitoring.records.errors import BadRecord, SpoolBroken
from monitoring.records.events import Event, decode
from monitoring.records.spool import SpoolFile, read
from monitoring.records.store import Intake

#: Folder, beside the spool files, for lines that can never be stored.
REJECTED = "rejected"


class Ingester:
    """One per spool folder; a second one does no harm, for ids are stored once. Not for several threads.

    `rejected` counts lines set aside, `unkept` those of them that could not even be kept, `torn` the lines that a dying
    writer left half written.
    """

    def __init__(self, folder: Path, store: Intake, *, batch: int = 500, disk: Disk | None = None) -> None:
        self._folder, self._store, self._batch = folder, store, batch
        self._disk = disk or Disk()
        self._offsets: dict[str, int] = {}
        self.rejected = self.unkept = self.torn = 0

    def step(self) -> int:
        """Move what is new; returns how many records. Raises StoreAway; SpoolBroken, after moving the other files."""
        moved = 0
        broken: OSError | None = None
        try:
            files = list(read(self._folder, self._disk))
        except OSError as problem:
            raise SpoolBroken(f"The spool folder {self._folder} cannot be listed: {problem}.") from problem
        for file in files:
            try:
                moved += self._drain(file)
            except FileNotFoundError:
                self._offsets.pop(file.name, None)  # another ingester finished it
            except OSError as problem:
                broken = problem
        if broken is not None:
            raise SpoolBroken(
                f"A spool file cannot be read or removed: {broken}. It stays; see to its disk."
            ) from broken
        return moved

    def _drain(self, file: SpoolFile) -> int:
        offset = self._offsets.get(file.name)
        if offset is None:
            offset = self._offsets[file.name] = self._store.offset(file.name)
        moved = 0
        for chunk in file.chunks(offset, lines_max=self._batch):
            moved += self._move(file.name, chunk.lines, offset)
            offset = self._offsets[file.name] = chunk.end
        torn = file.finish(offset)
        if torn is not None:
            self.torn += torn > 0
            self._store.forget(file.name)
            del self._offsets[file.name]
        return moved

    def _move(self, name: str, lines: Sequence[bytes], start: int) -> int:
        """Store the lines that begin at `start`. Where the store refuses them together, each goes alone."""
        events: list[Event] = []
        bad: list[bytes] = []
        for line in lines:
            try:
                events.append(decode(line))
            except BadRecord:
                bad.append(line)
        end = start + sum(map(len, lines))
        kept = not bad or self._set_aside(f"{name}.{start}", bad)
        try:
            self._store.ingest(name, end, events)
        except BadRecord:
            return self._move_one_by_one(name, lines, start)
        self.rejected += len(bad)
        self.unkept += 0 if kept else len(bad)
        return len(events)

    def _move_one_by_one(self, name: str, lines: Sequence[bytes], start: int) -> int:
        if len(lines) > 1:
            moved = 0
            for line in lines:
                moved += self._move(name, [line], start)
                start += len(line)
            return moved
        kept = self._set_aside(f"{name}.{start}", lines)
        self._store.ingest(name, start + len(lines[0]), ())
        self.rejected += 1
        self.unkept += not kept
        return 0

    def _set_aside(self, name: str, lines: Sequence[bytes]) -> bool:
        """Keep lines under a name that says where they stood: doing it again changes nothing. False: no room."""
        try:
            self._disk.make_folder(self._folder / REJECTED)
            handle = self._disk.replace(self._folder / REJECTED / name)
            try:
                data = b"".join(lines)
                while data:
                    data = data[self._disk.write(handle, data) :]
            finally:
                self._disk.close(handle)
        except OSError:
            return False
        return True
