"""What registration makes of what the checks found: a draft of the version, and the evidence that goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from adapters.checks.static import CheckReport
from adapters.signing import Signed
from adapters.values import Draft, Evidence, Kind, Version

#: The label of a version whose first forward is nowhere but on the engines that serve it.
UNPROBED = "unprobed"
#: The label of a version that may change nothing: its sender said so.
FORCED_NOOP = "forced_noop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What registration would make of a folder. `known` is the version that has these bytes under this name already."""

    digest: str
    report: CheckReport
    signed: Signed | None
    known: Version | None


def drafted(
    name: str, digest: str, report: CheckReport, *, base_digest: str, unprobed: bool, force_noop: bool = False
) -> Draft:
    """The version as far as its bytes tell; who brings it, and from where, is not in them."""
    return Draft(
        name=name,
        digest=digest,
        created_by="",
        base_digest=base_digest,
        rank=report.rank,
        alpha=report.alpha,
        bytes=report.bytes,
        coverage=report.coverage,
        base_name=report.base_name,
        labels=(*report.labels, *([UNPROBED] if unprobed else []), *([FORCED_NOOP] if force_noop else [])),
        carried=report.carried,
        template_digest=report.template_digest,
    )


def seen(
    version: Version,
    report: CheckReport,
    signed: Signed | None,
    *,
    who: str,
    at: float,
    found: Mapping[Kind, Mapping[str, Any]] = MappingProxyType({}),
) -> list[Evidence]:
    """The evidence of the checks, of the signature where there is one, and what its maker `found`, by kind."""
    # The names of the modules stand in the files, and are too many to keep twice.
    body = {**asdict(report), "modules": len(report.modules)}
    rows = [Evidence(name=version.name, number=version.number, kind="static", at=at, who=who, passed=True, body=body)]
    if signed is not None:
        rows.append(
            Evidence(
                name=version.name,
                number=version.number,
                kind="signature",
                at=at,
                who=who,
                passed=True,
                body={"by": signed.by},
            )
        )
    for kind, told in found.items():
        rows.append(
            Evidence(
                name=version.name,
                number=version.number,
                kind=kind,
                at=at,
                who=who,
                passed=True,
                subject="trainer",
                body=told,
            )
        )
    return rows


def judgement(version: Version, passed: bool, *, who: str, at: float, body: Mapping[str, Any]) -> Evidence:
    """The evidence of what the gate said."""
    return Evidence(name=version.name, number=version.number, kind="gate", at=at, who=who, passed=passed, body=body)


def overridden(version: Version, alias: str, closed: Sequence[str], why: str, *, who: str, at: float) -> Evidence:
    """The evidence that somebody went past the gate, for which reason, and what the gate had said."""
    body = {"why": why, "alias": alias, "gate": tuple(closed)}
    return Evidence(name=version.name, number=version.number, kind="override", at=at, who=who, passed=True, body=body)
