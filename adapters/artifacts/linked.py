"""Puts files together in a folder of our own without copying them, where the disk allows it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from adapters.errors import Unavailable


def linked(files: Mapping[str, Path], folder: Path) -> None:
    """Each file under its name in `folder`: a hard link, or a copy where there can be none. Never written through."""
    try:
        for name, path in files.items():
            try:
                os.link(path, folder / name, follow_symlinks=False)
            except OSError:
                shutil.copyfile(path, folder / name, follow_symlinks=False)
    except OSError as error:
        raise Unavailable(f"{folder} could not be filled: {error.strerror or error}.") from error
