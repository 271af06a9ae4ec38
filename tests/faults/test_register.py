"""Every I/O call of register and promote fails once in turn, or is the last thing that the process does.

Whatever happens, the system ends in a legal state: artifacts are whole or absent, versions have their bytes, aliases
point at verified versions. And doing it again succeeds.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import sqlalchemy as sa
from safetensors.numpy import save_file

from adapters.artifacts import Artifacts
from adapters.checks.modules import BaseModules, Module
from adapters.errors import Unavailable
from adapters.lifecycle import State
from adapters.registry import Registry
from adapters.sql import ALIASES, AUDIT, VERSIONS, SqlStore
from monitoring.database import connect

How = Literal["fails", "stays broken", "dies"]

CALLS = (
    "chmod",
    "fchmod",
    "fsync",
    "listdir",
    "lstat",
    "mkdir",
    "open",
    "rename",
    "replace",
    "rmdir",
    "scandir",
    "stat",
)
BASE = BaseModules(
    modules={"model.layers.0.q_proj": Module(kind="linear", inputs=8, outputs=8)}, architecture="x", quantization="none"
)


@dataclass
class Faults:
    """Counts I/O calls while armed, and lets the one numbered `at` go wrong."""

    seen: int = 0
    at: int | None = None
    how: How = "fails"
    armed: bool = False

    def point(self, error: Exception) -> None:
        if not self.armed:
            return
        self.seen += 1
        if self.at is None or self.seen < self.at or (self.seen > self.at and self.how != "stays broken"):
            return
        if self.how == "dies":
            os._exit(9)
        raise error

    @contextmanager
    def arm(self, at: int | None, how: How = "fails") -> Iterator[None]:
        self.seen, self.at, self.how, self.armed = 0, at, how, True
        try:
            yield
        finally:
            self.armed = False


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Puts a fault point in front of every call of the operating system that registration makes."""
    found = Faults()

    def wrapped(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found.point(OSError(errno.EIO, f"{name} failed"))
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrapped(getattr(os, name), name))
    monkeypatch.setattr(io, "open", wrapped(io.open, "io.open"))
    return found


class House:
    """One machine's state: a database, an artifact folder, and an adapter that waits to be registered."""

    def __init__(self, root: Path, faults: Faults) -> None:
        self.adapter = root / "adapter"
        write_adapter(self.adapter)
        self.artifacts = Artifacts(root / "artifacts")
        self.engine = connect(f"sqlite:///{root}/control.db")
        self.store = SqlStore(self.engine)
        self.registry = Registry(self.store, self.artifacts, BASE, "sha256:base")
        away = sa.exc.OperationalError("", None, Exception("the connection broke"))

        @sa.event.listens_for(self.engine, "before_cursor_execute")
        def _statement(*_: object) -> None:
            faults.point(away)

        commit = self.engine.dialect.do_commit

        def committed(connection: Any) -> None:
            faults.point(away)
            commit(connection)
            faults.point(away)  # it happened, and nobody was told

        self.engine.dialect.do_commit = committed  # type: ignore[method-assign,assignment]

    def forget(self) -> None:
        """As after a restart: nothing but the disk is left."""
        self.engine.dispose()

    def empty(self) -> None:
        """As on the first day."""
        with self.engine.begin() as connection:
            for table in (AUDIT, ALIASES, VERSIONS):
                connection.execute(sa.delete(table))
        shutil.rmtree(self.artifacts.root, ignore_errors=True)

    def register(self) -> None:
        self.registry.register(self.adapter, name="support", who="ann")

    def promote(self) -> None:
        self.registry.promote("support", 1, who="ann", why="ready")

    def is_legal(self) -> None:
        """What must hold at every moment, seen from outside."""
        for digest in self.artifacts.all():
            self.artifacts.verify(digest)
        versions = {(version.name, version.number): version for version in self.store.list()}
        for version in versions.values():
            self.artifacts.verify(version.digest)
        for alias in self.store.aliases():
            assert versions[alias.name, alias.number].state is State.VERIFIED
        if self.artifacts.root.exists():
            visible = {f"sha256:{path.name}" for path in self.artifacts.root.iterdir() if path.name[0] != "."}
            assert visible == self.artifacts.all()
        moves = [row for row in self.store.audit() if row.action != "registered"]
        assert len({(row.subject, row.before, row.after) for row in moves}) == len(moves)


def write_adapter(folder: Path) -> None:
    folder.mkdir()
    key = "base_model.model.model.layers.0.q_proj"
    rng = np.random.default_rng(0)
    tensors = {f"{key}.lora_{half}.weight": rng.normal(0, 0.1, (8, 8)).astype("f4") for half in "AB"}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def attempt(house: House, verb: str, faults: Faults, at: int | None, how: How) -> None:
    """Run the verb with a fault; in a child where the fault is death."""
    if how != "dies":
        with faults.arm(at, how), suppress(Unavailable):
            getattr(house, verb)()
        return
    house.forget()
    child = os.fork()
    if child == 0:
        with faults.arm(at, how):
            getattr(house, verb)()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9


def ready(house: House, verb: str) -> None:
    """Everything that comes before the verb."""
    if verb == "promote":
        house.register()
        house.registry.verified(house.store.get("support", 1), who="fleet")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on; BLAS has idle threads
@pytest.mark.parametrize("how", ["fails", "stays broken", "dies"])
@pytest.mark.parametrize(("verb", "calls_min"), [("register", 50), ("promote", 8)])
def test_a_fault_at_any_call_leaves_a_legal_state_and_a_retry_succeeds(
    verb: str, calls_min: int, how: How, tmp_path: Path, faults: Faults
) -> None:
    house = House(tmp_path, faults)
    ready(house, verb)
    attempt(house, verb, faults, None, "fails")
    calls = faults.seen
    assert calls >= calls_min
    for at in range(1, calls + 1):
        house.empty()
        ready(house, verb)
        attempt(house, verb, faults, at, how)
        house.forget()
        house.is_legal()
        getattr(house, verb)()
        house.is_legal()
        wanted = State.CHECKED if verb == "register" else State.VERIFIED
        assert [version.state for version in house.store.list()] == [wanted]
        assert [alias.number for alias in house.store.aliases()] == ([1] if verb == "promote" else [])
        house.artifacts.sweep(older_than_s=-1)
        assert [path.name for path in house.artifacts.root.iterdir()] == [house.store.list()[0].digest[7:]]
    house.forget()


def test_a_disk_that_is_full_refuses_the_adapter_and_keeps_nothing(tmp_path: Path, faults: Faults) -> None:
    house = House(tmp_path, faults)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(Unavailable, match="artifact store could not copy"):
            house.register()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    house.is_legal()
    assert list(house.artifacts.root.iterdir()) == []
    house.register()
    house.forget()
