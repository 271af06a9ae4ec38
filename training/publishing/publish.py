"""A finished run → a checked version of the registry. Blocking; called again it gives the same version."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from adapters.checks.probe import Recorded
from adapters.errors import AdapterError
from adapters.registry import Registry
from adapters.values import Kind, Version
from training.publishing import lineage
from training.publishing.curves import document, read, verdict
from training.publishing.errors import CannotPublish, NoPlot
from training.publishing.result import write_result

#: What of an adapter's folder leaves: weights as safetensors, their config, and what a version carries besides.
LEAVES: Final = ("adapter_config.json", "adapter_model.safetensors")
MAY_LEAVE: Final = ("graftline.json",)
PARITY: Final = "parity.json"
FOLDER: Final = "published"
NOTE: Final = "published.json"
#: Makes a signature in the folder, over everything else in it: `adapters.signing.sign` with its key, say.
Sign = Callable[[Path], object]


def publish(registry: Registry, run: Path, *, name: str, who: str, job: str = "", sign: Sign | None = None) -> Version:
    """Register what the run in this folder made, as `name`: its adapter with `training.json`, the trainer's parity
    logprobs and its lineage as evidence. `result.csv` and the curves stay in the run's folder.

    The version is checked, and of origin training: it is loaded and not served until the gate passed it. Called again,
    or by another run that made the same bytes, this gives the version that there is. Raises CannotPublish and what
    `Registry.register` raises.
    """
    if (known := _known(registry, run)) is not None:
        return known
    curves = read(run)
    told = lineage.record(run)
    if told["chosen"]["method"] == "reward":
        raise CannotPublish(f"{name}: a reward model gives scores and no words; it serves as rl.rewards of a recipe.")
    said = verdict(curves, learning_rate=told["chosen"].get("learning_rate"))
    origins = lineage.lineage(run, curves, said)
    recorded = _recorded(run)
    folder = _folder(run, origins, sign)
    write_result(run)
    with suppress(NoPlot):  # the numbers stand in training.json; a picture is for people
        from training.publishing.plot import draw

        draw(curves, said, name, run)
    found: dict[Kind, Mapping[str, Any]] = {
        "training": {
            **origins,
            "curves": {**said.document(), **document(curves)},
            "job": job,
            "seconds": told.get("seconds"),
            "cpu_seconds": told.get("cpu_seconds"),
            "why": said.evidence,
        }
    }
    if recorded is not None:
        found["probe"] = recorded.document()
    version = registry.register(
        folder,
        name=name,
        who=who,
        note=f"{origins['method']} on {_called(origins['dataset'])}",
        origin="training",
        source=f"job:{job}" if job else "run",
        unprobed=False,
        found=found,
    )
    _note(run, version)
    return version


def _known(registry: Registry, run: Path) -> Version | None:
    """The version that an earlier call made: its state may have moved on, even to rejected."""
    path = run / NOTE
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes())
        return registry.resolve_name(f"{kept['name']}:{kept['number']}")
    except (ValueError, KeyError, AdapterError):
        return None


def _note(run: Path, version: Version) -> None:
    building = run / f".{NOTE}"
    building.write_bytes(orjson.dumps({"name": version.name, "number": version.number, "digest": version.digest}))
    os.replace(building, run / NOTE)


def _recorded(run: Path) -> Recorded | None:
    """What the trainer recorded; None where it recorded nothing, and a prober has to look. Raises CannotPublish."""
    path = run / PARITY
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_bytes())
        trained = told.get("trained")
        recorded = Recorded.from_document(told)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotPublish(f"{path} is no recording of ours: {error}") from error
    if trained is not None and trained["plain"] and not trained["passed"]:
        raise CannotPublish(
            f"The adapter's files do not say what the model in memory said: mean {trained['mean']:.3g}, p99 "
            f"{trained['p99']:.3g}, most {trained['most']:.3g} nats apart. They were not saved as they were trained."
        )
    return recorded


def _folder(run: Path, origins: Mapping[str, Any], sign: Sign | None) -> Path:
    """The version's own files, put together once: a signature has a time in it, and would be other bytes each time."""
    target = run / FOLDER
    if target.is_dir():
        return target
    adapter = run / "adapter"
    if missing := [name for name in LEAVES if not (adapter / name).is_file()]:
        raise CannotPublish(f"{adapter} lacks {', '.join(missing)}: only weights as safetensors leave.")
    with tempfile.TemporaryDirectory(prefix=".publishing-", dir=run) as scratch:
        building = Path(scratch) / FOLDER
        building.mkdir()
        for name in (*LEAVES, *MAY_LEAVE):
            if (adapter / name).is_file():
                shutil.copyfile(adapter / name, building / name)
        text = orjson.dumps(origins, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
        (building / lineage.FILE).write_bytes(text)
        if sign is not None:
            sign(building)
        building.rename(target)
    return target


def _called(source: Mapping[str, Any]) -> str:
    return str(source.get("dataset") or source.get("file") or source.get("source") or "its rows")[:80]
