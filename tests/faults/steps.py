"""A verb of the registry with a fault at each of its steps: `python -m tests.faults.steps VERB HOW FOLDER`.

A fork of this process does the verb. Before its n-th call of the operating system or of the database it ends, as by
`kill -9`, or that call fails as on a full disk or a lost connection; n goes on until the verb comes through. Each time
another process then opens what is left: it must be legal, and doing the verb again must complete it.

It is a process of its own because it forks a hundred times: of pytest's, torch and all, that takes ten times as long.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import sqlalchemy as sa
from safetensors.numpy import save_file

from adapters.artifacts import Artifacts
from adapters.checks.modules import BaseModules, Module
from adapters.collect import collect
from adapters.errors import Reason, Unavailable
from adapters.gate import EvidenceGate
from adapters.lifecycle import CURRENT, MOVES, State
from adapters.registry import Registry
from adapters.sql import SqlStore
from monitoring.database import connect

How = Literal["dies", "fails", "stays broken"]

DIED, BROKE = 9, 3
MONTH_S = 30 * 86400.0
KEY = "base_model.model.model.layers.0.q_proj"
BASE = BaseModules(
    modules={"model.layers.0.q_proj": Module(kind="linear", inputs=8, outputs=8)}, architecture="x", quantization="none"
)
NAN = Reason(code="not_finite", field="answer", found="NaN", allowed="finite numbers", advice="Train again.")
#: Calls that Python announces to audit hooks, and that touch the disk.
ANNOUNCED = ("open", "os.", "fcntl.", "sqlite3.connect")
#: Calls that it does not announce.
SILENT = ("fsync", "fchmod")


@dataclass
class Faults:
    """Counts steps from `arm` on. Set up in a fork, because an audit hook is for life."""

    at: int
    how: How
    seen: int = 0
    armed: bool = False

    def install(self, engine: sa.Engine) -> None:
        """Put a step in front of every call."""

        def announced(event: str, _: object) -> None:
            if self.armed and event.startswith(ANNOUNCED):
                self.step(OSError(errno.ENOSPC, "no space left on device"))

        sys.addaudithook(announced)
        for name in SILENT:
            setattr(os, name, self._stepping(getattr(os, name)))
        away = sa.exc.OperationalError("", None, Exception("the connection broke"))
        commit = engine.dialect.do_commit

        def committed(connection: Any) -> None:
            self.step(away)
            commit(connection)
            self.step(away)  # it happened, and nobody was told

        sa.event.listen(engine, "before_cursor_execute", lambda *_: self.step(away))
        engine.dialect.do_commit = committed  # type: ignore[method-assign,assignment]

    def step(self, error: Exception) -> None:
        if not self.armed:
            return
        self.seen += 1
        if self.seen == self.at or (self.seen > self.at and self.how == "stays broken"):
            if self.how == "dies":
                os._exit(DIED)
            raise error

    def _stepping(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.step(OSError(errno.ENOSPC, "no space left on device"))
            return real(*args, **kwargs)

        return call


class House:
    """The state under one folder, as a process that has just started finds it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = Artifacts(root / "artifacts")
        self.engine = connect(f"sqlite:///{root}/control.db")
        self.store = SqlStore(self.engine)
        self.registry = self.behind(EvidenceGate())

    def behind(self, gate: EvidenceGate | None) -> Registry:
        return Registry(self.store, self.artifacts, BASE, "sha256:base", gate=gate)

    def prepare(self) -> None:
        """Version 1 was live and is retired; 2 is live; 3 is verified, and 4 is checked."""
        for seed in (1, 2, 3, 4):
            version = self.behind(None).register(self.adapter(seed), name="support", who="ann")
            if seed < 4:
                self.behind(None).admit(version, who="fleet")
        self.behind(None).promote("support", 2, who="ann", why="better")
        self.behind(None).retire("support", 1, who="ann", why="old")
        self.adapter(5)
        with self.artifacts.staged(self.adapter(6)) as orphan:
            self.artifacts.commit(orphan)
        self.engine.dispose()

    def adapter(self, seed: int) -> Path:
        folder = self.root / f"adapter-{seed}"
        if not folder.exists():
            folder.mkdir()
            rng = np.random.default_rng(seed)
            tensors = {f"{KEY}.lora_{half}.weight": rng.normal(0, 0.1, (8, 8)).astype("f4") for half in "AB"}
            save_file(tensors, folder / "adapter_model.safetensors")
            config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}
            (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    def collect(self, *, later_s: float) -> None:
        collect(self.store, self.artifacts, (), dry_run=False, clock=lambda: time.time() + later_s)

    def is_legal(self) -> None:
        """What must hold at every moment, seen from outside."""
        versions = {(version.name, version.number): version for version in self.store.list()}
        rows = self.store.audit(limit=10_000)[::-1]
        for digest in self.artifacts.all():
            self.artifacts.verify(digest)  # nothing half-written is visible
        for version in versions.values():
            if version.state in CURRENT or version.state is State.RETIRED:
                self.artifacts.verify(version.digest)
            steps = [row for row in rows if row.subject == f"support:{version.number}" and row.action != "overrode"]
            states = [State(row.after) for row in steps]
            assert states[0] is State.UPLOADED
            assert states[-1] is version.state
            assert all(row.before == before for row, before in zip(steps[1:], states, strict=False))
            assert all(after in MOVES[before] for before, after in pairwise(states))
            assert (State.REJECTED in states) is bool(version.reasons)
            kinds = [found.kind for found in self.store.evidence(version.name, version.number)]
            assert kinds.count("static") == (State.CHECKED in states)
            overrode = [row for row in rows if row.subject == f"support:{version.number}" and row.action == "overrode"]
            assert kinds.count("override") == len(overrode)
        pointed = {alias.alias: alias for alias in self.store.aliases()}
        for name in {row.subject.partition("@")[2] for row in rows if "@" in row.subject}:
            moves = [
                row for row in rows if row.subject == f"support@{name}" and row.action in ("pointed", "taken_down")
            ]
            assert all(row.before == before.after for row, before in zip(moves[1:], moves, strict=False))
            assert moves[-1].after == (str(pointed[name].number) if name in pointed else "")
        for alias in pointed.values():
            assert versions[alias.name, alias.number].state is State.VERIFIED

    def state(self, number: int) -> State:
        return self.store.get("support", number).state

    def at(self, alias: str) -> int:
        return self.store.alias("support", alias).number


@dataclass(frozen=True)
class Verb:
    """Something that a process does, what it has done once it is complete, and how many steps it takes at least."""

    do: Callable[[House], object]
    done: Callable[[House], bool]
    steps_min: int


def _admitted(house: House) -> bool:
    return (house.state(4), house.at("candidate"), house.at("live")) == (State.VERIFIED, 4, 2)


def _collected(house: House) -> bool:
    kept = {house.store.get("support", number).digest for number in (2, 3, 4)}
    return house.state(1) is State.DELETED and house.artifacts.all() == kept


VERBS = {
    "register": Verb(
        do=lambda house: house.registry.register(house.root / "adapter-5", name="support", who="ann"),
        done=lambda house: house.state(5) is State.CHECKED and len(house.store.list()) == 5,
        steps_min=60,
    ),
    "admit": Verb(
        do=lambda house: house.registry.admit(house.store.get("support", 4), who="fleet"), done=_admitted, steps_min=10
    ),
    "promote": Verb(
        do=lambda house: house.registry.promote("support", 3, who="ann", why="best", override="I measured it"),
        done=lambda house: house.at("live") == 3 and len(house.store.evidence("support", 3, "override")) == 1,
        steps_min=15,
    ),
    "withdraw": Verb(
        do=lambda house: house.registry.withdraw(house.store.get("support", 2), [NAN], who="tripwire"),
        done=lambda house: house.state(2) is State.REJECTED and "live" not in {a.alias for a in house.store.aliases()},
        steps_min=10,
    ),
    "retire": Verb(
        do=lambda house: house.registry.retire("support", 3, who="ann", why="old", take_down=True),
        done=lambda house: house.state(3) is State.RETIRED and house.at("live") == 2,
        steps_min=10,
    ),
    "gc": Verb(do=lambda house: house.collect(later_s=MONTH_S), done=_collected, steps_min=25),
}


def in_another_process(work: Callable[[], int | None]) -> int:
    """Fork, work, and exit with what that returns; what it raises is printed, and is a failure of its own."""
    child = os.fork()
    if child == 0:
        code = BROKE
        try:
            code = work() or 0
        except BaseException:  # noqa: BLE001 - nothing of a fork may run on into pytest
            os.write(2, traceback.format_exc().encode())
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def attempt(root: Path, verb: Verb, at: int, how: How) -> int:
    """Do the verb with a fault at its n-th step; tells whether that step was reached."""
    house = House(root)
    faults = Faults(at=at, how=how)
    faults.install(house.engine)
    faults.armed = True
    try:
        verb.do(house)
    except Unavailable:
        assert faults.seen >= at
    faults.armed = False
    return DIED if faults.seen >= at else 0


def recover(root: Path, verb: Verb) -> None:
    """What the next process finds is legal, and it completes the verb."""
    house = House(root)
    house.is_legal()
    bytes_before = house.artifacts.all()
    if verb is not VERBS["gc"]:
        house.collect(later_s=0)  # what has just been stored, or has just ended, is not collected
        assert house.artifacts.all() == bytes_before
    verb.do(house)
    assert verb.done(house)
    house.collect(later_s=MONTH_S)
    house.is_legal()
    house.artifacts.sweep(older_than_s=-1)
    kept = {version.digest for version in house.store.list() if version.state in CURRENT}
    assert {f"sha256:{path.name}" for path in house.artifacts.root.iterdir()} == kept


def every_step(name: str, how: How, folder: Path) -> int:
    """Put the fault at one step after the other; returns how many the verb has. Raises AssertionError."""
    (folder / "first").mkdir()
    House(folder / "first").prepare()
    verb, at = VERBS[name], 0
    while True:
        at += 1
        root = folder / str(at)
        shutil.copytree(folder / "first", root)
        code = in_another_process(lambda root=root, at=at: attempt(root, verb, at, how))  # type: ignore[misc]
        assert code in (0, DIED), f"step {at} of {name} broke what should have been told as Unavailable"
        assert in_another_process(lambda root=root: recover(root, verb)) == 0, f"after step {at} of {name}"  # type: ignore[misc]
        shutil.rmtree(root)
        if code == 0:
            return at


if __name__ == "__main__":
    _, which, way, where = sys.argv
    sys.exit(0 if every_step(which, cast(How, way), Path(where)) > VERBS[which].steps_min else "it has fewer steps")
