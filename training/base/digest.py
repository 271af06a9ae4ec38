"""One digest for a folder of model files."""

import hashlib
from pathlib import Path

CARD = "card.json"
_CHUNK = 1 << 20


def folder_digest(path: Path) -> str:
    """`sha256:<hex>` over sorted (relative name, sha256 of content), without the card."""
    total = hashlib.sha256()
    for name, file in sorted((f.relative_to(path).as_posix(), f) for f in path.rglob("*") if f.is_file()):
        if name != CARD:
            total.update(f"{name}\n{_file_digest(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _file_digest(file: Path) -> str:
    seen = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            seen.update(chunk)
    return seen.hexdigest()
