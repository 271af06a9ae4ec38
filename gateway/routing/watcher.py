"""Keeps the routing snapshot young: a thread looks at the revision row and swaps the snapshot when it moved."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from adapters.errors import AdapterError
from adapters.experiments.store import ExperimentStore
from adapters.lifecycle import State
from adapters.store import Store as AdapterStore
from gateway.access.errors import AccessError
from gateway.access.identify import Keyring
from gateway.access.store import Store as KeyStore
from gateway.routing.snapshot import Snapshot, build
from gateway.routing.store import FleetStore
from monitoring.database import reading, revision

log = logging.getLogger("graftline.routing")

#: All that `build` routes by. Versions that are gone stay in their table for ever, and must cost nothing here.
SERVABLE = frozenset({State.VERIFIED})
_TRIES = 3
#: Changes that come while a snapshot is read, and in a rest of twice that time, are read together the next time: a
#: storm of them takes a third of a core at most, and a change is still seen within a quarter of a second.
_REST, _REST_MOST_S = 2.0, 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where snapshots come from."""

    database: Engine
    keys: KeyStore
    adapters: AdapterStore
    fleet: FleetStore
    experiments: ExperimentStore
    base_name: str
    base_created: int

    def revision(self) -> int:
        with reading(self.database).begin() as connection:
            return revision(connection)

    def load(self) -> Snapshot:
        """Read all rows, again where a change came in between: rows of two moments need not fit together, and an alias
        would be unknown for as long as its version was not. Under a storm of changes the last try counts: it carries
        the revision from before it, so the next look reads again."""
        for _ in range(_TRIES):
            at = self.revision()
            snapshot = self._read(at)
            if self.revision() == at:
                break
        return snapshot

    def _read(self, at: int) -> Snapshot:
        return build(
            revision=at,
            base_name=self.base_name,
            base_created=self.base_created,
            keyring=Keyring(self.keys.list()),
            versions=self.adapters.list(states=SERVABLE),
            aliases=self.adapters.aliases(),
            residents=self.fleet.residents(),
            experiments=self.experiments.list(active=True),
            out={replica: out.why for replica, out in self.fleet.out().items()},
        )


class Watcher:
    """Owns the current snapshot. `snapshot` is read by the serving loop and written by one thread."""

    def __init__(self, source: Source, *, poll_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.snapshot = source.load()
        self.confirmed_at = clock()
        self._source, self._poll_s, self._clock = source, poll_s, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)
        self.failing = False

    @property
    def age_s(self) -> float:
        """Seconds since the snapshot was last known to be the newest."""
        return self._clock() - self.confirmed_at

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def look(self) -> bool:
        """One look; returns whether the snapshot was swapped."""
        seen = self._source.revision()
        moved = seen != self.snapshot.revision
        if moved:
            self.snapshot = self._source.load()
        self.confirmed_at = self._clock()
        return moved

    def describe(self) -> Mapping[str, object]:
        return {"revision": self.snapshot.revision, "age_s": round(self.age_s, 3), "failing": self.failing}

    def _run(self) -> None:
        pause = self._poll_s
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                self.look()
                if self.failing:
                    log.info("control database is back at revision %d", self.snapshot.revision)
                self.failing = False
            except Exception as error:  # the loop's supervisor: without this thread no key is ever revoked again
                if not self.failing:
                    foreign = not isinstance(error, SQLAlchemyError | AccessError | AdapterError | OSError)
                    log.error("control database away, serving the last snapshot: %s", error, exc_info=foreign)
                self.failing = True
            pause = max(self._poll_s, min(_REST_MOST_S, _REST * (time.monotonic() - began)))
