"""Jobs, their events and their checkpoints as OpenAI's SDK reads them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from training.jobs.values import Checkpoint, Job, JobEvent, JobState

#: What a client that says nothing leaves to be chosen.
_USUAL: Final = ("n_epochs", "batch_size", "learning_rate_multiplier")
#: As OpenAI names them.
_METRICS: Final = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def job(one: Job, *, base: str, tuned: str, verdict: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A job. `tuned` is the name of what it has trained, shown once that is served; `verdict` is what the gate said."""
    over = one.state is JobState.SUCCEEDED
    return {
        "id": one.id,
        "object": "fine_tuning.job",
        "model": one.model or base,
        "created_at": int(one.created_at),
        "finished_at": int(one.finished_at) if one.finished_at is not None else None,
        "fine_tuned_model": tuned if over and tuned else None,
        "organization_id": one.tenant,
        "result_files": list(one.result_files),
        "status": str(one.state),
        "training_file": one.training_file,
        "validation_file": one.validation_file or None,
        "hyperparameters": _hyperparameters(one),
        "method": _method(one),
        "trained_tokens": one.trained_tokens,
        "error": _error(one),
        "seed": one.seed,
        "estimated_finish": int(one.finish_at) if one.finish_at is not None else None,
        "integrations": one.asked.get("integrations") or [],
        "metadata": dict(one.metadata) or None,
        "user_provided_suffix": one.suffix or None,
        "graftline": {
            "phase": str(one.phase),
            "attempt": one.attempt,
            "adapter": f"{one.name}:{one.version}" if one.version is not None else None,
            "recipe": one.recipe,
            "gate": verdict,
        },
    }


def event(one: JobEvent) -> dict[str, Any]:
    """An event."""
    return {
        "id": one.id,
        "object": "fine_tuning.job.event",
        "created_at": int(one.at),
        "level": one.level,
        "message": one.message,
        "type": one.kind,
        "data": dict(one.data),
    }


def checkpoint(one: Checkpoint, tuned: str) -> dict[str, Any]:
    """A checkpoint. It can be gone on from, but not asked: its name is told because clients expect one."""
    return {
        "id": one.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(one.at),
        "fine_tuned_model_checkpoint": f"{tuned}:ckpt-step-{one.step}",
        "step_number": one.step,
        "metrics": {name: one.metrics[name] for name in _METRICS if name in one.metrics} | {"step": one.step},
        "fine_tuning_job_id": one.job,
    }


def page(rows: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """One page, of rows of which one more than `limit` was looked for."""
    data = rows[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


def verdict(text: str) -> dict[str, Any] | None:
    """What the gate wrote, where it is whole."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _hyperparameters(one: Job) -> dict[str, Any]:
    """What was asked for; "auto" where it was left to be chosen."""
    method = one.asked.get("method") or {}
    said = (method.get(method.get("type") or "supervised") or {}).get("hyperparameters") or {}
    return dict.fromkeys(_USUAL, "auto") | dict(one.asked.get("hyperparameters") or {}) | dict(said)


def _method(one: Job) -> dict[str, Any]:
    asked = one.asked.get("method") or {}
    kind = str(asked.get("type") or "supervised")
    return {"type": kind, kind: {**(asked.get(kind) or {}), "hyperparameters": _hyperparameters(one)}}


def _error(one: Job) -> dict[str, Any] | None:
    if one.error is None:
        return None
    return {"code": one.error.code, "message": one.error.message, "param": one.error.param or None}
