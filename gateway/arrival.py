"""From a source, or an archive that was sent, to a version: the one way in, for the CLI and for HTTP."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.artifacts.archive import unpacked
from adapters.artifacts.linked import linked
from adapters.carried import FILE as CARRIED
from adapters.carried import Carried, checked
from adapters.checks.files import check_files
from adapters.errors import Findings
from adapters.intake import Checked
from adapters.limits import Limits
from adapters.lineage import restored
from adapters.sources import SourceRules, fetched, pinned, told
from adapters.sources.rules import Progress, no_progress
from adapters.store import Version
from gateway.control import Control
from gateway.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How an adapter is to be registered. `carried` takes the place of what the adapter carries itself."""

    name: str
    who: str
    note: str = ""
    carried: Carried | None = None
    force_noop: bool = False
    unprobed: bool = False


def rules(settings: Settings, limits: Limits, *, anywhere: bool) -> SourceRules:
    """What may be named as a source; `anywhere` is for a person at this machine, who can read its folders anyway."""
    return SourceRules(
        folders=None if anywhere else settings.source_folders,
        hosts=settings.source_hosts,
        buckets=None if anywhere else settings.source_buckets,
        hub_endpoint=settings.hub_endpoint,
        limits=limits,
        timeout_s=settings.source_timeout_s,
    )


def arrive(
    control: Control, source: str, allowed: SourceRules, wish: Wish, progress: Progress = no_progress
) -> Version:
    """Register what the source gives. Raises what sources and `Registry.register` raise."""
    source = pinned(source, allowed)
    with fetched(source, allowed, progress) as folder, _ready(folder, wish, allowed.limits) as ready:
        return _register(control, ready, wish, _origin(source))


def look(control: Control, source: str, allowed: SourceRules, wish: Wish, progress: Progress = no_progress) -> Checked:
    """What `arrive` would make of the source; nothing is stored."""
    source = pinned(source, allowed)
    with fetched(source, allowed, progress) as folder, _ready(folder, wish, allowed.limits) as ready:
        return control.registry.check(ready, name=wish.name, force_noop=wish.force_noop)


def arrive_packed(control: Control, archive: Path, wish: Wish) -> Version:
    """Register the archive that somebody sent."""
    with unpacked(archive, control.limits) as folder, _ready(folder, wish, control.limits) as ready:
        return _register(control, ready, wish, "archive")


def look_packed(control: Control, archive: Path, wish: Wish) -> Checked:
    """What `arrive_packed` would make of the archive; nothing is stored."""
    with unpacked(archive, control.limits) as folder, _ready(folder, wish, control.limits) as ready:
        return control.registry.check(ready, name=wish.name, force_noop=wish.force_noop)


def carried_from(document: Any) -> Carried | None:
    """What a caller wants the version to carry; None where nothing was said. Raises Rejected with every reason."""
    if document is None:
        return None
    findings = Findings()
    found = checked(document, findings)
    findings.done()
    return found


def _register(control: Control, folder: Path, wish: Wish, source: str) -> Version:
    return control.registry.register(
        folder,
        name=wish.name,
        who=wish.who,
        note=wish.note,
        force_noop=wish.force_noop,
        source=source,
        unprobed=wish.unprobed,
    )


def _origin(source: str) -> str:
    """The source as the version's row tells it: a path on this machine is nobody's business."""
    if source.startswith("hub:") or ("://" in source and not source.lower().startswith("file:")):
        return told(source)
    return "folder" if Path(source.removeprefix("file://")).is_dir() else "archive"


@contextmanager
def _ready(folder: Path, wish: Wish, limits: Limits) -> Iterator[Path]:
    """The folder to register: an export as the version it was, and with what the caller wants it to carry. The
    caller's own folder is never written to."""
    with restored(folder) as own:
        if wish.carried is None:
            yield own
            return
        findings = Findings()
        check_files(own, limits, findings)
        findings.done()  # what follows takes plain files only
        with tempfile.TemporaryDirectory(prefix="graftline-carried-") as name:
            made = Path(name)
            linked({path.name: path for path in own.iterdir() if path.name != CARRIED}, made)
            if wish.carried:
                (made / CARRIED).write_text(json.dumps(wish.carried.document(), indent=2, ensure_ascii=False))
            yield made
