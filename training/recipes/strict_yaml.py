"""YAML as people believe it to be: no key twice, no aliases, `1e-3` a number, `no` and `on` words."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from training.recipes.errors import BadRecipe

BYTES_MAX = 256 * 1024
DEPTH_MAX = 20
_NUMBER = re.compile(r"[-+]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][-+]?\d{1,4})?")
_WHOLE = re.compile(r"[-+]?\d{1,30}")
_WORDS: dict[str, object] = {"true": True, "false": False, "null": None, "~": None, "": None}
_PLAIN = {"str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq"}


def read(text: str) -> dict[str, Any]:
    """The document, a mapping. Raises BadRecipe with every problem of form."""
    if len(text.encode()) > BYTES_MAX:
        raise BadRecipe([f"it has more than {BYTES_MAX} bytes"])
    problems: list[str] = []
    try:
        _look_at_events(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise BadRecipe([f"it is not YAML: {' '.join(str(error).split())}"]) from error
    found = _value(node, problems, "") if node is not None else None
    if not isinstance(found, dict):
        raise BadRecipe([*problems, "it must be a mapping of keys to values, such as `method: sft`"])
    if problems:
        raise BadRecipe(problems)
    return found


def _look_at_events(text: str) -> None:
    """What must be refused before anything is built of it: an alias can unfold to gigabytes, depth ends the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise BadRecipe([f"line {_line(event)} uses a YAML alias (`*name`); write the value out"])
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise BadRecipe([f"line {_line(event)} is nested deeper than {DEPTH_MAX} levels"])


def _value(node: yaml.Node, problems: list[str], place: str) -> Any:
    where = f"{place or 'the document'} (line {_line(node)})"
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN:
        problems.append(f"{where}: the tag {node.tag} means nothing here")
        return None
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, problems, where)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, problems, f"{place}[{at}]") for at, item in enumerate(node.value)]
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{where}: a key must be a word")
            continue
        inside = f"{place}.{key.value}" if place else str(key.value)
        if key.value in found:
            problems.append(f"{inside} (line {_line(key)}): the key stands there twice")
        found[str(key.value)] = _value(value, problems, inside)
    return found


def _scalar(node: yaml.ScalarNode, problems: list[str], where: str) -> Any:
    text = str(node.value)
    if node.style is not None:  # quoted, or a block of text
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            problems.append(f"{where}: {text} is too large a number")
        return number
    return text


def _line(found: yaml.Event | yaml.Node) -> int:
    """The line it stands on, as editors count."""
    return found.start_mark.line + 1 if found.start_mark is not None else 1
