"""From drafts to the spool: a bounded queue and one thread, so that no request ever waits for a record.

A record whose answer ended `flush_s` ago is in the spool. While the disk refuses, encoded records wait in memory up
to a bound in number and in bytes; beyond it each one dropped is counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from gateway.capture.compose import compose, exposure
from gateway.capture.draft import Draft
from gateway.capture.meters import Meters
from monitoring.records.errors import SpoolFull
from monitoring.records.events import Event, encode
from monitoring.records.spool import Spool

log = logging.getLogger("graftline.capture")
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Exposed:
    """A request that has met an arm and is not done yet."""

    draft: Draft


class Outbox:
    """One per process. `put` is called by the serving loop, everything else happens in the thread."""

    def __init__(
        self,
        spool: Spool,
        meters: Meters,
        *,
        base_digest: str,
        records_max: int,
        flush_s: float,
        bytes_max: int = 256 << 20,
        capture_bytes_max: int = 1 << 20,
        secret: bytes = b"",
    ) -> None:
        self._spool, self._meters, self._base_digest = spool, meters, base_digest
        self._records_max, self._flush_s = records_max, flush_s
        self._bytes_max, self._capture_bytes_max, self._secret = bytes_max, capture_bytes_max, secret
        self._drafts: deque[Draft | Exposed] = deque()
        self._lines: deque[bytes] = deque()
        self._taken = 0  # bytes that came, counted by the serving loop
        self._gone = 0  # bytes that went, counted by the thread
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self.refused = False
        self.dropped = 0

    def put(self, draft: Draft) -> None:
        """Hand a finished draft over; never waits, never raises."""
        size = draft.bytes
        if self.waiting >= self._records_max or self._taken - self._gone + size > self._bytes_max:
            self.dropped += 1
            return
        self._taken += size
        self._drafts.append(draft)

    def expose(self, draft: Draft) -> None:
        """Hand over that a request met an arm, before it goes on; never waits, never raises."""
        if self.waiting >= self._records_max:
            self.dropped += 1
        else:
            self._drafts.append(Exposed(draft))

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what is there and stop."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(10)
        if not self._flushed():
            self.dropped += len(self._lines)
            self._meters.dropped(self.dropped)
            log.error("%d records are lost: the spool refused them to the end", len(self._lines))
        self._spool.close()

    @property
    def waiting(self) -> int:
        return len(self._drafts) + len(self._lines)

    def flush(self) -> bool:
        """Compose and write all that is waiting; False when the disk refused."""
        while self._drafts:
            draft = self._drafts.popleft()
            if isinstance(draft, Exposed):
                self._queue(exposure(draft.draft, self._secret))
                continue
            self._gone += draft.bytes
            record = compose(draft, self._base_digest, self._capture_bytes_max, self._secret)
            if not draft.shadows:
                self._meters.count(record)
            if draft.key is not None:  # a stranger's request is counted, or anyone could fill the disk
                self._queue(record)
        self._meters.dropped(self.dropped)
        if not self._lines:
            return True
        batch = list(self._lines)
        try:
            self._spool.append(batch)
        except SpoolFull as error:
            if not self.refused:
                log.error("records wait in memory, the spool refused them: %s", error)
            self.refused = True
            self._meters.spool_failed()
            self._written(error.written)
            return False
        self._written(len(batch))
        if self.refused:
            log.info("the spool takes records again; %d were dropped so far", self.dropped)
        self.refused = False
        return True

    def _queue(self, event: Event) -> None:
        line = encode(event)
        self._gone -= len(line)
        self._lines.append(line)

    def _written(self, count: int) -> None:
        for _ in range(count):
            self._gone += len(self._lines.popleft())

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._flush_s)
            if not self._flushed():
                time.sleep(_RETRY_S)

    def _flushed(self) -> bool:
        """Flush, past records that cannot be composed."""
        for _ in range(len(self._drafts) + 1):
            try:
                return self.flush()
            except Exception:  # the loop's supervisor: one record must not end all capture
                self.dropped += 1
                self._meters.dropped(self.dropped)
                log.exception("a record could not be written")
        return False
