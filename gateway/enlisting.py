"""From a request for a fine-tuning job to the job's row: checked as a whole, and made once however often it is sent.

SDKs send a POST again without any key that says so, only with a count of the retry: the same body from the same tenant
within `RETRY_S` of a job is then that job. A client that wants to be sure sends an `Idempotency-Key`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from adapters.errors import BadName
from adapters.names import check_name
from gateway.access.identify import allows
from gateway.access.keys import Key
from gateway.control import actor
from gateway.errors import BadField
from gateway.routing.tuned import adapter_name
from gateway.values import Target
from training.files.recipes import Asked, Rows, Server, recipe_for
from training.files.sources import DATASET, FILE_ID, Shelves
from training.jobs.store import Jobs
from training.jobs.values import Job, new_id

RETRY_S: Final = 600.0
SUFFIX_CHARS_MAX: Final = 64
SEED_MAX: Final = 2**31 - 1
_LOOKED_BACK: Final = 100
_NAME_CHARS_MAX: Final = 63
_STRANGE: Final = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What a request is held against. `base` is the name that the base is served under."""

    jobs: Jobs
    shelves: Shelves
    base: str
    server: Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How a request came."""

    key: Key
    retry_count: int = 0
    idempotency_key: str = ""


def enlist(desk: Desk, sent: Sent, asked: Mapping[str, Any], start: Target, *, now: float) -> Job:
    """The job of a request, a new one or the one that it has made already. `start` is what its `model` means.

    Raises BadField, BadTrainingFile, BadJobRequest, JobsUnavailable, FilesUnavailable.
    """
    idem = _idem(sent, asked)
    if (known := _known(desk.jobs, sent, asked, idem, now=now)) is not None:
        return known
    job = _job(desk, sent, asked, start, now=now)
    if not sent.idempotency_key:
        window = f"{idem}:{int(now // RETRY_S)}"
        idem = f"{window}:{sum(each.idem.startswith(window) for each in _recent(desk.jobs, sent))}"
    return _same(desk.jobs.create(replace(job, idem=idem)), asked)


def _job(desk: Desk, sent: Sent, asked: Mapping[str, Any], start: Target, *, now: float) -> Job:
    id_, key = new_id(), sent.key
    suffix = str(asked.get("suffix") or "")
    name = adapter_name(slug(suffix) or start.adapter.partition(":")[0], id_)
    try:
        check_name(name, reserved=frozenset({desk.base}))
    except BadName as error:
        raise BadField(f"The suffix names the adapter. {error}", param="suffix") from error
    if not allows(key, name, name):
        raise BadField(
            f"This key may not use a model {name!r}, so it may not train one. Choose a suffix that is among the key's "
            "models.",
            param="suffix",
        )
    method = asked.get("method") or {}
    kind = str(method.get("type") or "supervised")
    seed = asked.get("seed")
    seed = int(seed) if seed is not None else secrets.randbelow(SEED_MAX)
    own = _own(method, kind)
    rows = _rows(desk, key.tenant, asked, own, now=now)
    integrations = asked.get("integrations") or ()  # of W&B, and one at most
    recipe = recipe_for(
        Asked(
            name=name,
            seed=seed,
            start_from=start.adapter or "base",
            type=kind,
            method=own,
            hyperparameters=asked.get("hyperparameters") or {},
            reports=tuple(each["type"] for each in integrations),
            wandb={"name": id_, **integrations[0]["wandb"]} if integrations else {},
        ),
        rows,
        desk.server,
    )
    return Job(
        id=id_,
        tenant=key.tenant,
        owner=actor(key),
        created_at=now,
        name=name,
        recipe=recipe,
        asked=asked,
        training_file=rows.train.name,
        validation_file=rows.held.name if rows.held is not None else "",
        model=str(asked["model"]),
        suffix=suffix,
        seed=seed,
        metadata=asked.get("metadata") or {},
    )


def slug(suffix: str) -> str:
    """A suffix as a name of the registry; what cannot stand in one becomes a hyphen."""
    return _STRANGE.sub("-", suffix.lower()).strip("-._")[:_NAME_CHARS_MAX]


def _own(method: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """What stands under the method's name. Raises BadField."""
    for name in sorted(method.keys() - {"type", kind}):
        raise BadField(f"method.{name[:60]} does not go with the type {kind[:60]!r}.", param=f"method.{name[:60]}")
    own = method.get(kind)
    if own is not None and not isinstance(own, Mapping):
        raise BadField(f"method.{kind[:60]} must be an object.", param=f"method.{kind[:60]}")
    return own or {}


def _rows(desk: Desk, tenant: str, asked: Mapping[str, Any], method: Mapping[str, Any], *, now: float) -> Rows:
    find = desk.shelves.source
    held = asked.get("validation_file")
    settings = {**(asked.get("hyperparameters") or {}), **_mapping(method.get("hyperparameters"))}
    replay = settings.get("replay")
    named = isinstance(replay, str) and (FILE_ID.fullmatch(replay) or DATASET.fullmatch(replay))
    return Rows(
        train=find(tenant, str(asked["training_file"]), param="training_file", now=now),
        held=find(tenant, str(held), param="validation_file", now=now) if held else None,
        replay=find(tenant, str(replay), param="replay", now=now) if named else None,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _idem(sent: Sent, asked: Mapping[str, Any]) -> str:
    if sent.idempotency_key:
        return f"key:{hashlib.sha256(sent.idempotency_key.encode()).hexdigest()[:48]}"
    body = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
    return f"body:{hashlib.sha256(body).hexdigest()[:48]}"


def _known(jobs: Jobs, sent: Sent, asked: Mapping[str, Any], idem: str, *, now: float) -> Job | None:
    """The job that an earlier sending of this request has made, where it can be told."""
    if sent.idempotency_key:
        return next((_same(job, asked) for job in _recent(jobs, sent) if job.idem == idem), None)
    if not sent.retry_count:
        return None
    ours = (job for job in _recent(jobs, sent) if job.idem.startswith(f"{idem}:"))
    return next((job for job in ours if job.created_at > now - RETRY_S), None)


def _recent(jobs: Jobs, sent: Sent) -> tuple[Job, ...]:
    return jobs.list(sent.key.tenant, limit=_LOOKED_BACK)


def _same(job: Job, asked: Mapping[str, Any]) -> Job:
    if dict(job.asked) != dict(asked):
        raise BadField(
            f"This Idempotency-Key has made {job.id} of another request. Send a key of its own with each job.",
            code="idempotency_key_reused",
        )
    return job
