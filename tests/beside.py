"""Programs that some tests run and the project does not need: beside its packages, where nobody else looks."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def beside(name: str, *wanted: str, scratch: Path) -> Path:
    """A folder for PYTHONPATH with what is `wanted` and all that it needs, less what is installed here already.

    It never holds another version of a package of ours, so whatever a test sees of that is what users see.
    """
    folder = ROOT / ".venv" / name
    asked = {_canonical(_NAME.match(each).group()) for each in wanted}  # type: ignore[union-attr]
    ours = distributions(path=[sysconfig.get_paths()["purelib"]])  # not what ray and setuptools bring inside themselves
    here = {_canonical(each.name) for each in ours} - asked
    never = scratch / f"{name}-never.txt"
    never.write_text("".join(f"{each}; sys_platform == 'never'\n" for each in sorted(here)))
    argv = [str(ROOT / ".venv/bin/uv"), "pip", "install", "-q", "--python", sys.executable, "--target", str(folder)]
    done = subprocess.run(
        [*argv, "--overrides", str(never), *wanted], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
