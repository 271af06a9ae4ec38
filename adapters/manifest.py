"""Reads adapter_config.json strictly: every field is known, and what would make the engine serve something else than
what was trained is refused by name. The engine itself drops unknown fields and believes the rest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from adapters.errors import Findings, shown
from adapters.patterns import PATTERNS_MAX, first_match, is_safe
from adapters.refusals import refuse

FILE = "adapter_config.json"

#: Less scales every update below what 16 bits can show.
_ALPHA_MIN = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What an adapter says about itself, after every field was looked at."""

    r: int
    alpha: float
    target_modules: frozenset[str] | str
    exclude_modules: frozenset[str] | str
    layers: frozenset[int]
    layers_pattern: tuple[str, ...]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    base_model: str
    revision: str
    ensure_weight_tying: bool
    target_parameters: frozenset[str] = frozenset()

    @property
    def rank_max(self) -> int:
        """The largest rank of any module: what the engine compares with its own bound."""
        return max([self.r, *self.rank_pattern.values()])

    def rank_and_scaling(self, module: str) -> tuple[int, float]:
        """The rank and the factor on B·A of one module, by the rule that PEFT and vLLM share: the first pattern that
        is a suffix of the module's name, from a dot on, wins."""
        name = self.parameter(module)
        rank = first_match(self.rank_pattern, name, self.r)
        alpha = first_match(self.alpha_pattern, name, self.alpha)
        return rank, alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    @staticmethod
    def parameter(module: str) -> str:
        """What the config calls a module of stacked experts: by its parameter. Other modules by their own name."""
        if module.endswith(".experts.base_layer"):
            return module.removesuffix(".base_layer") + ".gate_up_proj"
        return f"{module}.down_proj" if module.endswith(".experts") else module

    def targets(self, module: str) -> bool | None:
        """Whether training adapted `module`, by PEFT's rule. None where a regular expression would have to be run: a
        stranger's expression can take for ever, and the tensors say it anyway."""
        if (parameter := self.parameter(module)) != module:
            return _named(self.target_parameters, parameter)
        if isinstance(self.target_modules, str) or isinstance(self.exclude_modules, str):
            return None
        if _named(self.exclude_modules, module):
            return False
        if module in self.target_modules:
            return True
        if not _named(self.target_modules, module):
            return False
        if not self.layers:
            return True
        spots = [rf"(?:^|.*?\.){re.escape(pattern)}\.(\d+)\." for pattern in self.layers_pattern]
        for spot in spots or [r".*?\.[^.]*\.(\d+)\."]:
            if found := re.match(spot, module):
                return int(found[1]) in self.layers
        return False


def read_config(path: Path, findings: Findings, *, rank_max: int) -> LoraConfig | None:
    """Read the file; what is wrong goes to `findings`, and only an unusable file gives None."""
    fields = _fields(path, findings)
    if fields is None or not refuse(fields, findings):
        return None
    r = _positive_int(fields, "r", findings)
    alpha = _positive(fields.get("lora_alpha"), "lora_alpha", findings)
    rank_pattern = {key: rank for key, rank in _pattern(fields, "rank_pattern", findings).items() if type(rank) is int}
    alpha_pattern = _pattern(fields, "alpha_pattern", findings)
    targets = _names(fields, "target_modules", findings)
    parameters = _names(fields, "target_parameters", findings)
    if not targets and not parameters and not findings.has("bad_value"):
        findings.add("missing_field", "target_modules", "nothing", "names of modules", "Save with save_pretrained().")
    if r is None or alpha is None:
        return None
    config = LoraConfig(
        r=r,
        alpha=alpha,
        target_modules=targets,
        exclude_modules=_names(fields, "exclude_modules", findings),
        layers=_layers(fields, findings),
        layers_pattern=_layer_names(fields, findings),
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        use_rslora=_bool(fields, "use_rslora", findings),
        base_model=_text(fields, "base_model_name_or_path", findings),
        revision=_text(fields, "revision", findings),
        ensure_weight_tying=fields.get("ensure_weight_tying") is True,
        target_parameters=frozenset({parameters} if isinstance(parameters, str) else parameters) - {""},
    )
    if config.rank_max > rank_max:
        allowed = f"ranks up to {rank_max}, the engine's max_lora_rank"
        field = "r" if r > rank_max else "rank_pattern"
        findings.add("rank_too_high", field, config.rank_max, allowed, "Train with a lower rank, or raise the bound.")
    return config


def _fields(path: Path, findings: Findings) -> dict[str, Any] | None:
    advice = "Save the adapter with PEFT's save_pretrained()."
    try:
        fields = json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        findings.add("bad_config", FILE, str(error), "one JSON object", advice)
        return None
    if not isinstance(fields, dict):
        findings.add("bad_config", FILE, type(fields).__name__, "one JSON object", advice)
        return None
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands in it twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _positive_int(fields: Mapping[str, Any], name: str, findings: Findings) -> int | None:
    value = fields.get(name)
    if type(value) is int and 0 < value < 1 << 20:
        return value
    findings.add("bad_value", name, value, "a whole number above 0", "Save the adapter with save_pretrained().")
    return None


def _positive(value: Any, name: str, findings: Findings) -> float | None:
    if type(value) in (int, float) and _ALPHA_MIN <= value < 1e9:
        return float(value)
    allowed = f"a number from {_ALPHA_MIN:g} up"
    advice = "It scales the adapter: 0 or a trace would switch it off, and less would turn it round."
    findings.add("bad_value", name, value, allowed, advice)
    return None


def _bool(fields: Mapping[str, Any], name: str, findings: Findings) -> bool:
    value = fields.get(name)
    if value is not None and type(value) is not bool:
        findings.add("bad_value", name, value, "true or false", "It changes the scaling and must be certain.")
    return value is True


def _text(fields: Mapping[str, Any], name: str, findings: Findings) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        findings.add("bad_value", name, value, "text or null", "It says which base was trained on.")
    return value if isinstance(value, str) else ""


def _names(fields: Mapping[str, Any], name: str, findings: Findings) -> frozenset[str] | str:
    value = fields.get(name)
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(module, str) for module in value):
        return frozenset(value)
    findings.add("bad_value", name, value, "a list of names, or one regular expression", "Save with save_pretrained().")
    return frozenset()


def _layers(fields: Mapping[str, Any], findings: Findings) -> frozenset[int]:
    value = fields.get("layers_to_transform")
    values = [value] if type(value) is int else value or []
    if isinstance(values, list) and all(type(layer) is int for layer in values):
        return frozenset(values)
    findings.add("bad_value", "layers_to_transform", value, "layer numbers", "Save with save_pretrained().")
    return frozenset()


def _layer_names(fields: Mapping[str, Any], findings: Findings) -> tuple[str, ...]:
    value = fields.get("layers_pattern")
    values = [value] if isinstance(value, str) and value else value or []
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        return tuple(values)
    findings.add("bad_value", "layers_pattern", value, "names of layer lists", "Save with save_pretrained().")
    return ()


def _pattern(fields: Mapping[str, Any], name: str, findings: Findings) -> dict[str, Any]:
    """rank_pattern or alpha_pattern, with the keys that are safe to run and the values that make sense."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > PATTERNS_MAX:
        findings.add("bad_value", name, type(value).__name__, "a map from module names to numbers", "Save with PEFT.")
        return {}
    good: dict[str, Any] = {}
    for key, number in value.items():
        field = f"{name}[{shown(key)}]"
        if not is_safe(key):
            advice = "Write the module's name, or a simple expression: no look-around, no repeated groups."
            findings.add("unsafe_pattern", field, key, "module names and simple expressions", advice)
        elif name == "rank_pattern" and not (type(number) is int and 0 < number < 1 << 20):
            findings.add("bad_value", field, number, "a whole number above 0", "It is the rank of that module.")
        elif _positive(number, field, findings) is not None:
            good[key] = number
    return good


def _named(names: frozenset[str] | str, module: str) -> bool:
    return module in names or any(module.endswith(f".{name}") for name in names)
