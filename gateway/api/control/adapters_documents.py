"""Adapters as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from adapters.intake import Checked
from adapters.store import Alias, Version
from adapters.values import Evidence


def document(version: Version) -> dict[str, Any]:
    """A version."""
    return {
        "id": f"{version.name}:{version.number}",
        "object": "adapter.version",
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "state": version.state,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "base_digest": version.base_digest,
        "base_name": version.base_name,
        "rank": version.rank,
        "alpha": version.alpha,
        "bytes": version.bytes,
        "coverage": version.coverage,
        "labels": list(version.labels),
        "origin": version.origin,
        "source": version.source,
        "carried": version.carried.document(),
        "template_digest": version.template_digest,
        "note": version.note,
        "reasons": [reason.document() for reason in version.reasons],
    }


def looked(name: str, found: Checked) -> dict[str, Any]:
    """What registration would make of an adapter."""
    report = found.report
    return {
        "object": "adapter.check",
        "name": name,
        "digest": found.digest,
        "known_as": f"{found.known.name}:{found.known.number}" if found.known else None,
        "signed_by": found.signed.by if found.signed else None,
        "base_name": report.base_name,
        "rank": report.rank,
        "alpha": report.alpha,
        "bytes": report.bytes,
        "coverage": report.coverage,
        "labels": list(report.labels),
        "warnings": [str(warning) for warning in report.warnings],
        "carried": report.carried.document(),
        "template_digest": report.template_digest,
    }


def pointer(alias: Alias) -> dict[str, Any]:
    """An alias."""
    return {"object": "adapter.alias", "id": f"{alias.name}@{alias.alias}", **asdict(alias)}


def shown(evidence: Evidence) -> dict[str, Any]:
    """One piece of evidence."""
    return {"object": "adapter.evidence", **asdict(evidence)}
