"""The digest of a folder's chat template. The engine always uses the base's; an adapter that was trained with another
one is told apart by this."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FILE = "chat_template.jinja"
TOKENIZER = "tokenizer_config.json"
ADDED = "added_tokens.json"
_BYTES_MAX = 4 << 20


def read_template_digest(folder: Path) -> str:
    """`sha256:…` of the template, line ends and blanks at its end aside; empty where the folder has none."""
    text = _text(folder / FILE) or _configured(folder / TOKENIZER)
    if not text.strip():
        return ""
    plain = text.replace("\r\n", "\n").rstrip()
    return "sha256:" + hashlib.sha256(plain.encode(errors="replace")).hexdigest()


def adds_tokens(folder: Path) -> bool:
    """Whether the folder brings tokens of its own, which no adapter can make the engine read."""
    found = _document(folder / ADDED)
    return isinstance(found, dict) and bool(found)


def _configured(path: Path) -> str:
    """The template in a tokenizer's config: one text, or several by name, of which `default` counts."""
    found = _document(path)
    template = found.get("chat_template") if isinstance(found, dict) else None
    if isinstance(template, list):
        named = {row.get("name"): row.get("template") for row in template if isinstance(row, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _document(path: Path) -> object:
    try:
        return json.loads(_text(path) or "null")
    except (ValueError, RecursionError):
        return None


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _BYTES_MAX:
        return ""
    return path.read_bytes().decode(errors="replace")
