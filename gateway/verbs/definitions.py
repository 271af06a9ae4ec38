"""What `graftline experiments open` is told: a file, or options. It becomes the body of `POST /v1/experiments`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.errors import MissingExtra
from adapters.experiments.errors import BadExperiment
from gateway.api.control.experiments import Asked, AskedArm, AskedMetric, AskedStep

_BYTES_MAX = 1 << 20


def read(file: Path) -> Any:
    """The document in a YAML, JSON or TOML file, by its suffix. Raises BadExperiment."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadExperiment([f"{file}: {error.strerror or error}."]) from error
    if len(data) > _BYTES_MAX:
        raise BadExperiment([f"{file}: {len(data)} bytes; {_BYTES_MAX} at most."])
    try:
        if file.suffix == ".toml":
            return tomllib.loads(data.decode())
        if file.suffix == ".json":
            return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadExperiment([f"{file}: {error}."]) from error
    return _yaml(file, data)


def asked(found: Any) -> Asked:
    """The document as the route would take it. Raises BadExperiment with everything that is wrong with its form."""
    try:
        return Asked.model_validate(found)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}." for each in error.errors()]
        raise BadExperiment(lines) from None


def by_options(
    *,
    name: str,
    alias: str,
    arms: Sequence[str],
    primary: str,
    guardrails: Sequence[str],
    unit: str,
    share: int | None,
    ask: bool,
    note: str,
) -> Asked:
    """The same from options. Raises BadExperiment with everything that is missing or cannot be read."""
    reasons = []
    if not name:
        reasons.append("--name: which adapter? Or name a file.")
    if not primary:
        reasons.append("--primary: which metric decides?")
    numbers, margins = _pairs("--arm", arms, int, reasons), _pairs("--guardrail", guardrails, float, reasons)
    if reasons:
        raise BadExperiment(reasons)
    metrics = [AskedMetric(name=primary, role="primary")]
    metrics += [AskedMetric(name=each, role="guardrail", margin=margin) for each, margin in margins]
    return Asked(
        name=name,
        alias=alias,
        arms=[AskedArm(name=each, number=number) for each, number in numbers],
        metrics=metrics,
        unit=unit,
        ramp=None if share is None else [AskedStep(share=share, at_least_s=0.0)],
        ask_before=["promote"] if ask else [],
        note=note,
    )


def _pairs(option: str, given: Sequence[str], kind: type[Any], reasons: list[str]) -> list[tuple[str, Any]]:
    found = []
    for each in given:
        name, _, value = each.partition("=")
        try:
            found.append((name, kind(value)))
        except ValueError:
            reasons.append(f"{option} {each}: give NAME=NUMBER.")
    return found


def _yaml(file: Path, data: bytes) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("YAML needs the package pyyaml; give the experiment as .json or .toml.") from error
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadExperiment([f"{file}: {error}."]) from error
