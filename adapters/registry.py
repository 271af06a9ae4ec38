"""Which adapters exist and which may serve: registration, admission, promotion, rollback, withdrawal, retirement.

Each step is one change in the store or one rename in the artifacts, in an order in which a crash between any two
leaves a legal state: bytes that no row names, or a version in an earlier state than it would be. Doing it again goes on
where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from adapters.artifacts.local import Artifacts, digest_folder
from adapters.checks.files import check_files
from adapters.checks.modules import BaseModules
from adapters.checks.static import CheckReport
from adapters.checks.static import check as check_static
from adapters.errors import Findings, GateClosed, Gone, IllegalMove, NoProber, Reason, Unavailable
from adapters.gate import Gate, OpenGate, waits
from adapters.intake import Checked, drafted, judgement, overridden, seen
from adapters.lifecycle import CURRENT, State
from adapters.limits import Limits
from adapters.names import LIVE, ByNumber, check_name, parse
from adapters.signing import Signatures, Signed
from adapters.store import Store
from adapters.values import Alias, Evidence, Kind, OnUnavailable, Origin, Version

#: "Wherever it points now": for people who mean the latest state and not one that they saw.
Anywhere = Literal["anywhere"]


def engine_name(version: Version) -> str:
    """The one name an engine sees: immutable, because the digest is part of it."""
    return spelled(version.name, version.digest)


def spelled(name: str, digest: str) -> str:
    """The same for bytes that were served under this name."""
    return f"{name}@{digest.removeprefix('sha256:')[:16]}"


class Registry:
    """The verbs that people and the fleet use. Blocking: call it from threads, never from the serving loop."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        base: BaseModules,
        base_digest: str,
        limits: Limits | None = None,
        *,
        reserved: frozenset[str] = frozenset(),
        signatures: Signatures | None = None,
        gate: Gate | None = None,
        probing: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`reserved` holds the names that the base is served under: no adapter may take one. `probing` says whether the
        installation can run a first forward off the shared engine."""
        self._store = store
        self._artifacts = artifacts
        self._base = base
        self._base_digest = base_digest
        self._limits = limits or Limits()
        self._reserved = reserved
        self._signatures = signatures
        self._gate = gate or OpenGate()
        self._probing = probing
        self._clock = clock

    def check(self, folder: Path, *, name: str, force_noop: bool = False) -> Checked:
        """Look at the adapter in `folder` as `register` would, and store nothing. Raises as `register`, without asking
        whether anything here can probe it."""
        check_name(name, reserved=self._reserved)
        with _readable(folder):
            self._check_files(folder)
            report, signed = self._look(folder, force_noop=force_noop)
            digest = digest_folder(folder)
        same = (version for version in self._store.by_digest(digest) if version.name == name)
        known = next((version for version in same if version.state in CURRENT), None)
        return Checked(digest=digest, report=report, signed=signed, known=known)

    def register(
        self,
        folder: Path,
        *,
        name: str,
        who: str,
        note: str = "",
        force_noop: bool = False,
        origin: Origin = "upload",
        source: str = "",
        unprobed: bool = False,
        found: Mapping[Kind, Mapping[str, Any]] = MappingProxyType({}),
    ) -> Version:
        """Check the adapter in `folder` and keep it; returns its version in state checked, or, when the same bytes are
        known under this name, the version that has them.

        Raises BadName, NoProber, Rejected with every reason, BadSignature, TooLarge, Unavailable. `force_noop` takes an
        adapter that changes nothing; `unprobed` one whose first forward will be on the engines that serve it. `found`
        is what its maker, whom we trust, saw of it, by kind: a `probe` is then not made again.
        """
        check_name(name, reserved=self._reserved)
        if not (self._probing or unprobed or "probe" in found):
            raise NoProber(
                f"Nothing here can run the first forward of {name!r} off the shared engine, where one bad adapter "
                "spoils its neighbours' answers. Install the training extra, name a quarantine engine (probe_url), "
                "or register it as unprobed."
            )
        with _readable(folder):
            self._check_files(folder)  # before a byte is copied
            with self._artifacts.staged(folder, bytes_max=self._limits.bytes_max) as copy:
                # What is checked is our copy: the sender can no longer change it.
                report, signed = self._look(copy, force_noop=force_noop)
                with self._artifacts.kept():  # nothing collects these bytes before a row names them
                    digest = self._artifacts.commit(copy)
                    draft = drafted(
                        name, digest, report, base_digest=self._base_digest, unprobed=unprobed, force_noop=force_noop
                    )
                    version = self._store.insert(
                        replace(draft, created_by=who, note=note, origin=origin, source=source)
                    )
        if version.state is not State.UPLOADED:
            return version
        return self._store.move(
            version.name,
            version.number,
            State.UPLOADED,
            State.CHECKED,
            who=who,
            why="the static and numeric checks passed",
            evidence=seen(version, report, signed, who=who, at=self._clock(), found=found),
        )

    def probed(self, version: Version, *, who: str, note: str = "", labels: Sequence[str] = ()) -> Version:
        """The first forward, off the shared engine, was passed. Calling it again changes nothing."""
        now = self._store.get(version.name, version.number)
        if now.state in (State.PROBED, State.VERIFIED):
            return now
        return self._store.move(now.name, now.number, now.state, State.PROBED, who=who, why=note, labels=labels)

    def waits(self, version: Version) -> bool:
        """Whether our own training made the version, and it has not passed: until then it is loaded, and not served."""
        return waits(version, self._store.evidence(version.name, version.number, "gate"))

    def judged(self, version: Version, reasons: Sequence[Reason], *, who: str, body: Mapping[str, Any]) -> Version:
        """The version was evaluated: it may be admitted, or it is rejected for these reasons. One that serves already
        stays, but may no more become `live`. Calling it again changes nothing."""
        now = self._store.get(version.name, version.number)
        verdict = judgement(now, not reasons, who=who, at=self._clock(), body=body)
        if reasons and now.state in (State.CHECKED, State.PROBED):
            to, why = State.REJECTED, str(reasons[0])
            moved = self._store.move
            return moved(now.name, now.number, now.state, to, who=who, why=why, reasons=reasons, evidence=[verdict])
        if now.state is not State.REJECTED:
            self._store.attest(verdict)
        return now

    def admit(self, version: Version, *, who: str, note: str = "") -> Version:
        """Every replica that should serve the version proved it: it may serve, and the alias for newcomers points at
        it, in one step. That is never `live` with the gate closed, nor for what training made."""
        live = version.origin != "training" and not self._closed(version)
        return self._store.admit(version.name, version.number, who=who, why=note, live_allowed=live)

    def rejected(self, version: Version, reasons: Sequence[Reason], *, who: str, why: str = "") -> Version:
        """The version failed a step before it was verified. Calling it again changes nothing."""
        now = self._store.get(version.name, version.number)
        if now.state is State.REJECTED:
            return now
        why = why or (str(reasons[0]) if reasons else "")
        return self._store.move(now.name, now.number, now.state, State.REJECTED, who=who, why=why, reasons=reasons)

    def withdraw(self, version: Version, reasons: Sequence[Reason], *, who: str, why: str = "") -> Version:
        """The version showed that it must not serve: it is rejected, and its aliases fall back to the verified version
        where they pointed before, or go, in one step. Calling it again changes nothing."""
        why = why or (str(reasons[0]) if reasons else "")
        return self._store.withdraw(version.name, version.number, who=who, why=why, reasons=reasons)

    def promote(
        self,
        name: str,
        number: int,
        *,
        alias: str = LIVE,
        expected: int | Anywhere | None = "anywhere",
        who: str,
        why: str,
        on_unavailable: OnUnavailable | None = None,
        override: str = "",
    ) -> Alias:
        """Point an alias at a verified version. `expected` is the version that the caller saw there, None for none.

        `live` asks the gate; `override` is the reason for which an engineer goes past it, and is kept. Raises NotFound,
        Gone, IllegalMove for a version that is not verified, GateClosed, and Conflict, saying who moved it and when.
        """
        check_name(alias, what="alias")
        version, there = self._present(name, number), self._number(name, alias)
        closed = self._closed(version) if alias == LIVE and there != number else ()
        if closed and version.state is State.VERIFIED and not override:
            raise GateClosed(
                f"{name}:{number} may not become {alias}: {'; '.join(closed)}. Have it evaluated, or override the gate "
                "with a reason, which is kept."
            )
        return self._store.point(
            name,
            alias,
            expected=there if expected == "anywhere" else expected,
            to=number,
            who=who,
            why=why,
            on_unavailable=on_unavailable,
            override=overridden(version, alias, closed, override, who=who, at=self._clock()) if closed else None,
        )

    def rollback(self, name: str, *, alias: str = LIVE, who: str, why: str) -> Alias:
        """Point an alias where it pointed before, past any gate; doing it twice comes back. Raises as `promote`."""
        held = self._store.alias(name, alias)
        if held.previous is None:
            raise IllegalMove(
                f"{name}@{alias} points at version {held.number} and at none before it that may serve: "
                "nothing to go back to."
            )
        return self._store.point(name, alias, expected=held.number, to=held.previous, who=who, why=why)

    def pin(self, name: str, alias: str, pinned: bool, *, who: str, why: str) -> Alias:
        """Give an alias a slot of its own in every engine, or take it back. Raises NotFound."""
        return self._store.pin(name, alias, pinned, who=who, why=why)

    def retire(self, name: str, number: int, *, who: str, why: str, take_down: bool = False) -> Version:
        """End a version's service; its bytes stay until nothing needs them. Retiring again changes nothing.

        Raises Conflict while an alias points at it, unless `take_down` removes those aliases in the same step: requests
        for them are then answered with an unknown model.
        """
        now = self._store.get(name, number)
        if now.state is State.RETIRED:
            return now
        return self._store.move(name, number, now.state, State.RETIRED, who=who, why=why, take_down=take_down)

    def verify(self, name: str, number: int) -> Path:
        """Read the bytes again, compare them with the digest, and check their signature; returns their folder.

        Raises NotFound, Gone, DigestMismatch or BadSignature.
        """
        folder = self._artifacts.verify(self._present(name, number).digest)
        if self._signatures:
            self._signatures.verify(folder)
        return folder

    def evidence(self, name: str, number: int, kind: Kind | None = None) -> tuple[Evidence, ...]:
        """What was seen of a version, oldest first."""
        return self._store.evidence(name, number, kind)

    def resolve_name(self, model: str) -> Version:
        """The version behind `support`, `support@candidate` or `support:7`. Raises BadName or NotFound."""
        asked = parse(model)
        if isinstance(asked, ByNumber):
            return self._store.get(asked.name, asked.number)
        return self._store.get(asked.name, self._store.alias(asked.name, asked.alias).number)

    def _check_files(self, folder: Path) -> None:
        findings = Findings()
        check_files(folder, self._limits, findings)
        findings.done()

    def _look(self, folder: Path, *, force_noop: bool) -> tuple[CheckReport, Signed | None]:
        report = check_static(folder, self._base, self._limits, force_noop=force_noop)
        return report, self._signatures.verify(folder) if self._signatures else None

    def _closed(self, version: Version) -> tuple[str, ...]:
        """Why the gate does not let the version become `live`; nothing where it does."""
        verdict = self._gate.decide(version, self._store.evidence(version.name, version.number))
        return () if verdict.passed else verdict.reasons or ("the gate gave no reason",)

    def _present(self, name: str, number: int) -> Version:
        version = self._store.get(name, number)
        if version.state is State.DELETED:
            raise Gone(f"{name}:{number} was deleted; its row remains because records name it. Register it again.")
        return version

    def _number(self, name: str, alias: str) -> int | None:
        return next((held.number for held in self._store.aliases(name) if held.alias == alias), None)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{folder} could not be read: {error.strerror or error}.") from error
