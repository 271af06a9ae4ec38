"""Which adapters exist and which may serve: registration, verification, promotion, rollback, retirement.

Each step is one change in the store or one rename in the artifacts, in an order in which a crash between any two
leaves a legal state: bytes that no row names, or a version in an earlier state than it would be. Doing it again goes on
where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from adapters.artifacts.local import Artifacts
from adapters.checks.files import check_files
from adapters.checks.modules import BaseModules
from adapters.checks.static import check
from adapters.errors import Findings, IllegalMove, Reason, Unavailable
from adapters.lifecycle import State
from adapters.limits import Limits
from adapters.names import LIVE, ByNumber, check_name, parse
from adapters.store import Alias, Draft, OnUnavailable, Store, Version

#: "Wherever it points now": for people who mean the latest state and not one that they saw.
Anywhere = Literal["anywhere"]


def engine_name(version: Version) -> str:
    """The one name an engine sees: immutable, because the digest is part of it."""
    return f"{version.name}@{version.digest.removeprefix('sha256:')[:16]}"


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
    ) -> None:
        """`reserved` holds the names that the base is served under: no adapter may take one."""
        self._store = store
        self._artifacts = artifacts
        self._base = base
        self._base_digest = base_digest
        self._limits = limits or Limits()
        self._reserved = reserved

    def register(self, folder: Path, *, name: str, who: str, note: str = "", force_noop: bool = False) -> Version:
        """Check the adapter in `folder` and keep it; returns its version in state checked, or, when the same bytes are
        known under this name, the version that has them.

        Raises BadName, Rejected with every reason, TooLarge, Unavailable. `force_noop` takes an adapter that changes
        nothing.
        """
        check_name(name, reserved=self._reserved)
        try:
            findings = Findings()
            check_files(folder, self._limits, findings)
            findings.done()  # before a byte is copied
            with self._artifacts.staged(folder, bytes_max=self._limits.bytes_max) as copy:
                # What is checked is our copy: the sender can no longer change it.
                report = check(copy, self._base, self._limits, force_noop=force_noop)
                digest = self._artifacts.commit(copy)
        except OSError as error:
            raise Unavailable(f"{folder} could not be read: {error.strerror or error}.") from error
        draft = Draft(
            name=name,
            digest=digest,
            created_by=who,
            base_digest=self._base_digest,
            rank=report.rank,
            alpha=report.alpha,
            bytes=report.bytes,
            coverage=report.coverage,
            note=note,
        )
        version = self._store.insert(draft)
        if version.state is not State.UPLOADED:
            return version
        return self._move(version, State.CHECKED, who=who, why="the static and numeric checks passed")

    def verified(self, version: Version, *, who: str, note: str = "") -> Version:
        """The probe was passed: the version may serve. Calling it again changes nothing."""
        now = self._store.get(version.name, version.number)
        if now.state is State.CHECKED:
            now = self._move(now, State.PROBED, who=who, why=note)
        if now.state is State.VERIFIED:
            return now
        return self._move(now, State.VERIFIED, who=who, why=note)

    def rejected(self, version: Version, reasons: Sequence[Reason], *, who: str, why: str = "") -> Version:
        """The version failed a step after registration. Calling it again changes nothing."""
        now = self._store.get(version.name, version.number)
        if now.state is State.REJECTED:
            return now
        why = why or (str(reasons[0]) if reasons else "")
        return self._store.move(now.name, now.number, now.state, State.REJECTED, who=who, why=why, reasons=reasons)

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
    ) -> Alias:
        """Point an alias at a verified version. `expected` is the version that the caller saw there, None for none.

        Raises NotFound, IllegalMove for a version that is not verified, and Conflict, saying who moved it and when.
        """
        check_name(alias, what="alias")
        at = self._number(name, alias) if expected == "anywhere" else expected
        return self._store.point(name, alias, expected=at, to=number, who=who, why=why, on_unavailable=on_unavailable)

    def rollback(self, name: str, *, alias: str = LIVE, who: str, why: str) -> Alias:
        """Point an alias where it pointed before; doing it twice comes back. Raises as `promote`."""
        held = self._store.alias(name, alias)
        if held.previous is None:
            raise IllegalMove(f"{name}@{alias} has only ever pointed at version {held.number}: nothing to go back to.")
        return self._store.point(name, alias, expected=held.number, to=held.previous, who=who, why=why)

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
        """Read the bytes again and compare them with the digest; returns their folder.

        Raises NotFound or DigestMismatch.
        """
        return self._artifacts.verify(self._store.get(name, number).digest)

    def resolve_name(self, model: str) -> Version:
        """The version behind `support`, `support@candidate` or `support:7`. Raises BadName or NotFound."""
        asked = parse(model)
        if isinstance(asked, ByNumber):
            return self._store.get(asked.name, asked.number)
        return self._store.get(asked.name, self._store.alias(asked.name, asked.alias).number)

    def _number(self, name: str, alias: str) -> int | None:
        return next((held.number for held in self._store.aliases(name) if held.alias == alias), None)

    def _move(self, version: Version, to: State, *, who: str, why: str) -> Version:
        return self._store.move(version.name, version.number, version.state, to, who=who, why=why)
