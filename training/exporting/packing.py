"""Models become W4A16 bases: rounded by ours, or by llm-compressor in an environment of its own. Heavy.

llm-compressor wants another transformers than we do, so it never shares our environment: it runs as a script under the
Python that the caller names, and what it leaves is looked at before it counts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from training.base.digest import folder_digest
from training.errors import BadCheckpoint, CannotExport, OutputExists
from training.quantize import Scheme, quantize

Method = Literal["gptq", "awq"]
_SCRIPT: Final = Path(__file__).with_name("compressor.py")
_TIMEOUT_S: Final = 6 * 3600.0
_SAID_MAX = 800
_COPIED = (".json", ".jinja", ".model", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressor:
    """llm-compressor: the Python of its environment, how it rounds, and what it looks at while it does."""

    python: Path
    method: Method = "gptq"
    #: Texts as the base will see them; it rounds so that these change least.
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What came out. `error_mean` is the mean relative error of a layer, where the packer tells it."""

    digest: str
    by: str
    scheme: Scheme
    group: int
    error_mean: float | None


def pack(
    source: Path,
    out: Path,
    *,
    scheme: Scheme = "w4a16",
    group: int = 64,
    by: Compressor | None = None,
    tell: Callable[[str], None] | None = None,
) -> Packed:
    """Write the bf16 model `source` to the new folder `out` as W4A16: by rtn of ours, or by `by`.

    Raises BadCheckpoint, CannotQuantize, CannotExport, OutputExists.
    """
    if by is None:
        done = quantize(source, out, scheme=scheme, group=group, progress=tell)
        return Packed(digest=done.digest, by="rtn", scheme=scheme, group=group, error_mean=done.error_mean)
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    if not by.texts:
        raise CannotExport("llm-compressor rounds by what it sees: give it rows to look at.")
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _compressed(source, building / "whole", by, symmetric=scheme == "w4a16", group=group)
        for file in sorted(source.iterdir()):
            if file.is_file() and file.suffix in _COPIED and not (building / "whole" / file.name).exists():
                shutil.copyfile(file, building / "whole" / file.name)
        digest = folder_digest(building / "whole")
        os.rename(building / "whole", out)
    except OSError as error:
        raise CannotExport(f"{out} could not be put in place: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Packed(digest=digest, by=f"llm-compressor {by.method}", scheme=scheme, group=group, error_mean=None)


def scheme_of(base: Path) -> tuple[Scheme, int]:
    """How a base is packed, so that what is made of it is packed alike; ours where it is not."""
    try:
        fields = json.loads((base / "config.json").read_text())
        packed: dict[str, Any] = (fields.get("quantization_config") or {}).get("config_groups") or {}
        first: dict[str, Any] = next(iter(packed.values()), {})
        weights = first.get("weights") or {}
        group = int(weights.get("group_size") or 64)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{base}/config.json can not be read: {error}") from error
    return ("w4a16" if weights.get("symmetric", True) else "w4a16_asym"), group


def _compressed(source: Path, out: Path, by: Compressor, *, symmetric: bool, group: int) -> None:
    plan = {
        "model": str(source.absolute()), "out": str(out.absolute()), "method": by.method, "symmetric": symmetric,
        "group": group, "texts": list(by.texts),
    }  # fmt: skip
    try:
        # Isolated: what our environment puts on a path would bring our transformers along.
        done = subprocess.run(
            [str(by.python), "-I", str(_SCRIPT)], input=json.dumps(plan), capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False, cwd=out.parent,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotExport(f"{by.python} could not run llm-compressor: {error}") from error
    if done.returncode:
        said = done.stderr.strip()[-_SAID_MAX:]
        raise CannotExport(
            f"llm-compressor under {by.python} ended with code {done.returncode}: {said}. It needs an environment of "
            "its own with llmcompressor installed."
        )
    try:
        fields = json.loads((out / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CannotExport(f"llm-compressor left no model in {out}: {error}") from error
    if "quantization_config" not in fields:
        raise CannotExport("llm-compressor left a model that is not packed; nothing was kept")
