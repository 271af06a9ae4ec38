"""What the fleet knows of versions, kept as evidence in the registry: recordings, certificates, strikes, failures.

Blocking, and read once: what is asked for again comes from memory. Certificates are kept by digest and engine
fingerprint (base, vLLM's version, flags), so an engine that restarts unchanged is trusted with what it served before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapters.checks.probe import Recorded
from adapters.errors import AdapterError, Reason
from adapters.lifecycle import State
from adapters.store import Store, Version
from adapters.values import Evidence, Kind

WHO = "fleet"
STRIKES_MAX = 2
#: An engine may be stopped for reasons of its own while it loads: of what has served, only strikes this near count.
STRIKES_WITHIN_S = 86400.0


class Book:
    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._recorded: dict[str, Recorded] = {}
        self._certified: set[tuple[str, str]] = set()
        self._read: set[str] = set()
        self._suspects: set[str] = set()
        #: Digest → what is wrong with the files on disk.
        self.damaged: dict[str, str] = {}

    def recorded(self, version: Version) -> Recorded | None:
        """What the first forward of these bytes gave; None before there was one."""
        self._know(version)
        return self._recorded.get(version.digest)

    def trusted(self, version: Version, fingerprint: str) -> bool:
        """Whether these bytes hold a certificate from an engine like this one, and nothing has spoken against them."""
        self._know(version)
        return (version.digest, fingerprint) in self._certified and version.digest not in self._suspects

    def certified(self, version: Version, fingerprint: str) -> bool:
        """Whether an engine like this one ever certified these bytes."""
        self._know(version)
        return (version.digest, fingerprint) in self._certified

    def knows(self, fingerprint: str) -> bool:
        """Whether an engine like this one ever certified anything."""
        return any(theirs == fingerprint for _, theirs in self._certified)

    def suspect(self, version: Version) -> None:
        """Trust no certificate of these bytes until they have been proved again."""
        self._suspects.add(version.digest)

    def record(self, version: Version, found: Recorded, *, subject: str = "") -> None:
        """Keep what the first forward gave."""
        self._recorded[version.digest] = found
        self.attest(version, "probe", passed=True, subject=subject, body=found.document())

    def certify(self, version: Version, fingerprint: str, *, subject: str, body: Mapping[str, Any]) -> None:
        """Keep a certificate. A second one of the same bytes by the same kind of engine is not news."""
        known = (version.digest, fingerprint) in self._certified and version.digest not in self._suspects
        self._suspects.discard(version.digest)
        self._certified.add((version.digest, fingerprint))
        if not known or version.state is not State.VERIFIED:
            self.attest(version, "parity", passed=True, subject=subject, body={**body, "engine": fingerprint})

    def attest(
        self, version: Version, kind: Kind, *, passed: bool, subject: str = "", body: Mapping[str, Any] | None = None
    ) -> None:
        self._store.attest(
            Evidence(
                name=version.name,
                number=version.number,
                kind=kind,
                subject=subject,
                at=self._clock(),
                who=WHO,
                passed=passed,
                body=body or {},
            )
        )

    def failed(self, version: Version, kind: Kind, reasons: Sequence[Reason], *, subject: str = "") -> None:
        """Keep why something did not pass."""
        self.attest(
            version, kind, passed=False, subject=subject, body={"reasons": [reason.document() for reason in reasons]}
        )

    def strike(self, version: Version, *, subject: str, why: str) -> int:
        """An engine died over this version; returns how often one has, lately where the version has served."""
        self.attest(version, "strike", passed=False, subject=subject, body={"why": why})
        since = self._clock() - STRIKES_WITHIN_S if version.state is State.VERIFIED else 0.0
        return sum(row.at >= since for row in self._store.evidence(version.name, version.number, "strike"))

    def damage(self, version: Version, error: AdapterError, *, subject: str = "") -> None:
        """The files of a version are missing or changed; kept once until they are mended."""
        if self.damaged.get(version.digest) != error.code:
            self.damaged[version.digest] = error.code
            advice = "Register the original folder again, which mends the files."
            found = reason(error.code, str(error), field="files", allowed=version.digest, advice=advice)
            self.failed(version, "load", [found], subject=subject)

    def mended(self, version: Version) -> None:
        self.damaged.pop(version.digest, None)

    def _know(self, version: Version) -> None:
        if version.id in self._read:
            return
        for row in self._store.evidence(version.name, version.number):
            if row.passed and row.kind == "probe" and version.digest not in self._recorded:
                self._recorded[version.digest] = Recorded.from_document(row.body)
            if row.passed and row.kind == "parity":
                self._certified.add((version.digest, str(row.body.get("engine", ""))))
        self._read.add(version.id)


def reason(code: str, found: str, *, field: str = "probe", allowed: str = "", advice: str = "") -> Reason:
    return Reason(code=code, field=field, found=found[:500], allowed=allowed, advice=advice)
