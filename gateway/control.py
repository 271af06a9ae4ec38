"""Control state of one installation, opened once per process: keys, adapters, fleet rows. CLI and routes share it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import Engine

from adapters.artifacts.local import Artifacts
from adapters.checks.identity import BaseIdentity, identified
from adapters.checks.modules import BaseModules
from adapters.errors import NotFound, Rejected
from adapters.experiments.sql import SqlExperiments
from adapters.gate import make_gate
from adapters.lifecycle import CURRENT, State
from adapters.limits import Limits as AdapterLimits
from adapters.names import ByNumber, parse
from adapters.registry import Registry
from adapters.signing import KeySignatures, Signatures, Unsigned
from adapters.sql import SqlStore as AdapterSql
from adapters.store import Version
from gateway.access.keys import Key, Role, mint
from gateway.access.sql import SqlStore as KeySql
from gateway.engines.prober import make_prober
from gateway.routing.sql import SqlFleetStore
from gateway.settings import Settings, SettingsError
from monitoring.database import connect, reading, revision
from monitoring.review.sql import SqlReviews
from training.base.digest import folder_digest
from training.files.shelf import Shelf
from training.files.sources import Shelves
from training.files.sql import SqlFiles
from training.jobs.sql import SqlJobs

#: After this long a change of control state is seen by every gateway.
VISIBLE_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base model that everything is served from and checked against."""

    name: str
    folder: Path
    digest: str
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The rooms that are open. `shelves` is where jobs find what they learn from; `parameters` is the base's size."""

    database: Engine
    keys: KeySql
    adapters: AdapterSql
    artifacts: Artifacts
    registry: Registry
    limits: AdapterLimits
    fleet: SqlFleetStore
    experiments: SqlExperiments
    reviews: SqlReviews
    files: SqlFiles
    jobs: SqlJobs
    shelves: Shelves
    base: Base
    parameters: int

    def revision(self) -> int:
        with reading(self.database).begin() as connection:
            return revision(connection)


def open_control(settings: Settings) -> Control:
    """Open (and on the first start, make) the control state under `settings.home`."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = connect(settings.control_url)
    base = find_base(settings)
    adapters = AdapterSql(database)
    artifacts = Artifacts(settings.artifacts)
    files = SqlFiles(database)
    modules = BaseModules.read(base.folder, identify(base, settings))
    limits = AdapterLimits(rank_max=settings.engine.max_lora_rank, bytes_max=settings.upload_bytes_max)
    return Control(
        database=database,
        keys=KeySql(database),
        adapters=adapters,
        artifacts=artifacts,
        registry=Registry(
            adapters,
            artifacts,
            modules,
            base.digest,
            limits,
            reserved=frozenset({base.name}),
            gate=make_gate(settings.gate),
            signatures=make_signatures(settings),
            probing=make_prober(settings, base) is not None,
        ),
        limits=limits,
        fleet=SqlFleetStore(database),
        experiments=SqlExperiments(database),
        reviews=SqlReviews(database),
        files=files,
        jobs=SqlJobs(database),
        shelves=Shelves(files=files, shelf=Shelf(settings.files), datasets=settings.datasets),
        base=base,
        parameters=_parameters(modules),
    )


def identify(base: Base, settings: Settings) -> BaseIdentity:
    """What adapters may call the base that they were trained on."""
    return identified(base.folder, names=(base.name, settings.base, *settings.base_aliases), digest=base.digest)


def make_signatures(settings: Settings) -> Signatures:
    """Who checks signatures, by `signing` and `signing_keys`."""
    return KeySignatures(settings.signing_keys, settings.signing) if settings.signing != "off" else Unsigned()


def find_base(settings: Settings) -> Base:
    """The base's folder and identity. A hub id must be in the local hub cache: nothing is fetched here."""
    folder = settings.base_folder or _cached(settings.base)
    if folder is None:
        raise SettingsError(
            f"The base {settings.base!r} is neither 'tidewell', nor a folder, nor in the local hub cache. "
            f"Fetch it once where there is a network (`hf download {settings.base}`), or give its folder."
        )
    return Base(
        name=settings.served_name,
        folder=folder,
        digest=_digest(folder, settings.home),
        created=int((folder / "config.json").stat().st_mtime),
    )


def make_admin_key(control: Control, path: Path) -> bool:
    """Write a key with every role to `path`, mode 0600, unless one is there; returns whether one was made."""
    if path.exists():
        return False
    secret, key = mint(tenant="default", name="admin", roles=list(Role), now=time.time(), who="graftline up")
    control.keys.insert(key)
    _write_secret(path, secret)
    return True


def pseudonym_secret(settings: Settings) -> bytes:
    """The secret that keys pseudonyms: from the settings, else from a file that the first process makes."""
    if settings.pseudonym_key:
        return settings.pseudonym_key.encode()
    path = settings.home.absolute() / "pseudonym.key"
    if not path.exists():
        _write_secret(path, secrets.token_hex(32))
    return path.read_bytes().strip()


def _write_secret(path: Path, secret: str) -> None:
    """Mode 0600 from its first byte on, whole or not at all, and never over one that is there."""
    part = path.with_suffix(f".{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    with contextlib.suppress(FileExistsError):
        os.link(part, path)
    part.unlink()


def settled(control: Control, version: Version) -> Version | None:
    """The version once it is verified and its name answers; None while that is not so. Raises `Rejected`."""
    version = control.adapters.get(version.name, version.number)
    if version.state is State.REJECTED:
        raise Rejected(version.reasons)
    if version.state is State.VERIFIED and control.adapters.aliases(version.name):
        return version
    return None


def wait_verified(
    control: Control, version: Version, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep
) -> Version:
    """The version once it is verified and every gateway has seen it; as it is when the time is over. Raises `Rejected`
    with the reasons."""
    until = time.monotonic() + timeout_s
    while (done := settled(control, version)) is None:
        if time.monotonic() > until:
            return control.adapters.get(version.name, version.number)
        sleep(0.05)
    sleep(VISIBLE_S)
    return done


def retire_model(control: Control, model: str, *, who: str, why: str) -> str:
    """Retire what `model` names: `support:7` that version, `support@candidate` the version it points at with every
    alias that does, `support` the name with all its versions and aliases.

    Returns what was retired. Raises `NotFound` when there is nothing of that name, `Conflict` for a version by number
    that an alias points at.
    """
    asked = parse(model)
    if isinstance(asked, ByNumber):
        control.registry.retire(asked.name, asked.number, who=who, why=why)
        return model
    if "@" in model:
        version = control.registry.resolve_name(model)
        control.registry.retire(version.name, version.number, who=who, why=why, take_down=True)
        return model
    versions = control.adapters.list(asked.name, states=CURRENT)
    if not versions:
        raise NotFound(f"There is no adapter {asked.name!r} to retire.")
    for version in versions:
        control.registry.retire(version.name, version.number, who=who, why=why, take_down=True)
    return asked.name


def actor(key: Key) -> str:
    """How a key is named in audit rows."""
    return f"{key.tenant}/{key.name}"


def _parameters(modules: BaseModules) -> int:
    """About how many weights the base has: an output layer is mostly its embeddings again."""
    counted = (each for name, each in modules.modules.items() if name.rpartition(".")[2] != "lm_head")
    return sum(each.inputs * each.outputs * each.experts for each in counted)


def _digest(folder: Path, home: Path) -> str:
    """The folder's digest, remembered under `home` while no file's size or time has changed: a large base takes long
    to read, and every process asks."""
    stats = sorted((f.relative_to(folder).as_posix(), f.stat()) for f in folder.rglob("*") if f.is_file())
    seen = [[str(folder), name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    memory = home / "base.json"
    try:
        remembered = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        remembered = {}
    if remembered.get("files") == seen:
        return str(remembered["digest"])
    digest = folder_digest(folder)
    if home.is_dir():
        part = memory.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"digest": digest, "files": seen}))
        part.rename(memory)
    return digest


def _cached(hub_id: str) -> Path | None:
    """The newest snapshot of a hub id in the local cache, by the hub's documented folder layout."""
    root = Path.home() / ".cache" / "huggingface" / "hub" / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    found = sorted(root.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None
