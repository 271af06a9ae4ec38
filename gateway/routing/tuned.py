"""The names by which OpenAI's clients ask for what a job has trained: `ft:BASE:TENANT:SUFFIX:ID`. Pure.

Such a name means one version for ever, as `support:7` does; it is read from the version, which says which job made it.
Where the job's client named no suffix, the registry calls the adapter `ft-ID`, and the suffix is left empty.
"""

from __future__ import annotations

import re
from typing import Final

from adapters.values import Version

_PREFIX: Final = "ft:"
_JOB: Final = re.compile(r"ftjob-([0-9A-Za-z]{1,64})")
_OWN: Final = "ft-"
_SPELLED: Final = re.compile(r"ft:.+:[^:]+:([^:]*):([0-9A-Za-z]{1,64})")


def adapter_name(suffix: str, job: str) -> str:
    """What the registry calls the result of a job with this suffix, which is a name already, or empty."""
    return suffix or f"{_OWN}{short(job)}"


def short(job: str) -> str:
    """A job's id without its prefix."""
    return job.removeprefix("ftjob-")


def spelled(base: str, tenant: str, name: str, job: str) -> str:
    """The name of what a job has trained."""
    suffix = "" if name == f"{_OWN}{short(job)}" else name
    return f"{_PREFIX}{base}:{tenant}:{suffix}:{short(job)}"


def of_version(base: str, version: Version) -> str:
    """The name of a version that a job made; empty for any other. Who made it is written as TENANT/JOB."""
    tenant, _, maker = version.created_by.partition("/")
    made = _JOB.fullmatch(maker) if version.origin == "training" else None
    return spelled(base, tenant, version.name, made[1]) if made else ""


def adapter_of(model: str) -> str:
    """The adapter that such a name is of, by its spelling alone; empty where it is none."""
    found = _SPELLED.fullmatch(model) if model.startswith(_PREFIX) else None
    return (found[1] or f"{_OWN}{found[2]}") if found else ""
