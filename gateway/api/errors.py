"""Every error a client can see: its HTTP status, its OpenAI type, and its bytes. The one place where they meet.

The SDK retries 408, 409, 429 and 5xx by itself; what must not be retried says so with `x-should-retry`.
"""

from __future__ import annotations

import math

import orjson

from adapters import errors as adapter_errors
from adapters.experiments import errors as experiment_errors
from gateway import errors as gateway_errors
from gateway.access import errors as access_errors
from gateway.engines import errors as engine_errors
from monitoring.records import errors as records_errors
from monitoring.review import errors as review_errors
from training import errors as training_errors
from training.data import errors as data_errors
from training.evaluation import errors as evaluation_errors
from training.files import errors as files_errors
from training.gate import errors as gate_errors
from training.jobs import errors as jobs_errors
from training.launchers import errors as launch_errors
from training.publishing import errors as publishing_errors
from training.recipes import errors as recipe_errors

Header = tuple[bytes, bytes]

#: The most specific class wins. (status, OpenAI `type`)
STATUS: dict[type[Exception], tuple[int, str]] = {
    gateway_errors.GatewayError: (500, "server_error"),
    gateway_errors.BadRequest: (400, "invalid_request_error"),
    gateway_errors.TooLarge: (413, "invalid_request_error"),
    gateway_errors.UnknownModel: (404, "invalid_request_error"),
    gateway_errors.UnknownRoute: (404, "invalid_request_error"),
    gateway_errors.WrongMethod: (405, "invalid_request_error"),
    gateway_errors.ClientTimeout: (408, "invalid_request_error"),
    gateway_errors.NoCapacity: (503, "server_error"),
    gateway_errors.StaleSnapshot: (503, "server_error"),
    gateway_errors.UnknownCompletion: (404, "invalid_request_error"),
    gateway_errors.TooMuchFeedback: (429, "rate_limit_error"),
    gateway_errors.FeedbackNotKept: (503, "server_error"),
    gateway_errors.AdapterDiverged: (500, "server_error"),
    access_errors.AccessError: (500, "server_error"),
    access_errors.Unauthenticated: (401, "authentication_error"),
    access_errors.Forbidden: (403, "permission_error"),
    access_errors.OverQuota: (429, "rate_limit_error"),
    access_errors.RequestTooLarge: (429, "rate_limit_error"),
    access_errors.BudgetSpent: (429, "insufficient_quota"),
    access_errors.KeyNotFound: (404, "invalid_request_error"),
    access_errors.LedgerError: (503, "server_error"),
    access_errors.BadKey: (400, "invalid_request_error"),
    access_errors.KeysUnavailable: (503, "server_error"),
    access_errors.LedgerUnavailable: (503, "server_error"),
    engine_errors.EngineError: (502, "server_error"),
    engine_errors.EngineTimeout: (504, "server_error"),
    adapter_errors.AdapterError: (500, "server_error"),
    adapter_errors.NotFound: (404, "invalid_request_error"),
    adapter_errors.Conflict: (409, "invalid_request_error"),
    adapter_errors.IllegalMove: (409, "invalid_request_error"),
    adapter_errors.Rejected: (422, "invalid_request_error"),
    adapter_errors.BadArchive: (400, "invalid_request_error"),
    adapter_errors.BadName: (400, "invalid_request_error"),
    adapter_errors.TooLarge: (413, "invalid_request_error"),
    adapter_errors.ProbeAway: (503, "server_error"),
    adapter_errors.Unavailable: (503, "server_error"),
    adapter_errors.BadBase: (500, "server_error"),
    adapter_errors.BadWeights: (500, "server_error"),
    adapter_errors.DigestMismatch: (500, "server_error"),
    adapter_errors.BadSignature: (422, "invalid_request_error"),
    adapter_errors.NoSigning: (500, "server_error"),
    adapter_errors.Gone: (410, "invalid_request_error"),
    adapter_errors.GateClosed: (409, "invalid_request_error"),
    adapter_errors.BadSource: (400, "invalid_request_error"),
    adapter_errors.SourceRefused: (400, "invalid_request_error"),
    adapter_errors.SourceUnavailable: (502, "server_error"),
    adapter_errors.HubOffline: (501, "server_error"),
    adapter_errors.BadExport: (400, "invalid_request_error"),
    adapter_errors.MissingExtra: (501, "server_error"),
    adapter_errors.NoProber: (409, "invalid_request_error"),
    records_errors.RecordsError: (500, "server_error"),
    records_errors.BadRecord: (400, "invalid_request_error"),
    records_errors.NotFound: (404, "invalid_request_error"),
    records_errors.SpoolFull: (503, "server_error"),
    records_errors.SpoolBroken: (503, "server_error"),
    records_errors.StoreAway: (503, "server_error"),
    review_errors.BadPick: (400, "invalid_request_error"),
    review_errors.BadAnswer: (400, "invalid_request_error"),
    review_errors.BadImport: (400, "invalid_request_error"),
    review_errors.TaskNotFound: (404, "invalid_request_error"),
    review_errors.ClaimLost: (409, "invalid_request_error"),
    review_errors.AlreadyAnswered: (409, "invalid_request_error"),
    review_errors.ReviewUnavailable: (503, "server_error"),
    experiment_errors.ExperimentError: (500, "server_error"),
    experiment_errors.BadExperiment: (400, "invalid_request_error"),
    experiment_errors.ExperimentNotFound: (404, "invalid_request_error"),
    experiment_errors.NoSlots: (409, "invalid_request_error"),
    experiment_errors.ExperimentConflict: (409, "invalid_request_error"),
    experiment_errors.ExperimentOver: (409, "invalid_request_error"),
    experiment_errors.ProposalOver: (409, "invalid_request_error"),
    experiment_errors.ExperimentsUnavailable: (503, "server_error"),
    training_errors.TrainingError: (500, "server_error"),
    training_errors.MarkerNotLearned: (503, "server_error"),
    data_errors.CannotWrite: (503, "server_error"),
    data_errors.TeacherAway: (503, "server_error"),
    evaluation_errors.EngineAway: (503, "server_error"),
    evaluation_errors.JudgeAway: (503, "server_error"),
    gate_errors.CannotProbe: (503, "server_error"),
    publishing_errors.PublishingError: (500, "server_error"),
    data_errors.DatasetNotFound: (404, "invalid_request_error"),
    recipe_errors.BadRecipe: (400, "invalid_request_error"),
    recipe_errors.DiskFull: (503, "server_error"),
    recipe_errors.RunTaken: (503, "server_error"),
    launch_errors.LauncherAway: (503, "server_error"),
    files_errors.FilesFailed: (500, "server_error"),
    files_errors.FileNotFound: (404, "invalid_request_error"),
    files_errors.BadUpload: (400, "invalid_request_error"),
    files_errors.NoRoom: (400, "invalid_request_error"),
    files_errors.BadTrainingFile: (400, "invalid_request_error"),
    files_errors.BadJobRequest: (400, "invalid_request_error"),
    files_errors.FilesNotKept: (503, "server_error"),
    files_errors.FilesUnavailable: (503, "server_error"),
    jobs_errors.JobsFailed: (500, "server_error"),
    jobs_errors.JobNotFound: (404, "invalid_request_error"),
    jobs_errors.JobConflict: (409, "invalid_request_error"),
    jobs_errors.JobRefused: (400, "invalid_request_error"),
    jobs_errors.JobsUnavailable: (503, "server_error"),
}

#: Their `reasons` hold everything that was found in one pass.
WITH_REASONS = (
    experiment_errors.BadExperiment,
    review_errors.BadAnswer,
    review_errors.BadImport,
    files_errors.BadJobRequest,
)

OURS = (
    gateway_errors.GatewayError,
    access_errors.AccessError,
    engine_errors.EngineError,
    adapter_errors.AdapterError,
    records_errors.RecordsError,
    training_errors.TrainingError,
)


def status(error: Exception) -> tuple[int, str]:
    """(HTTP status, OpenAI type) of an error of ours, or of one that we did not foresee."""
    if isinstance(error, engine_errors.EngineRefused):
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        return error.status, kind
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500, "server_error"


def body(error: Exception) -> bytes:
    """The OpenAI error body. An unforeseen error says nothing of its insides."""
    _, kind = status(error)
    if not isinstance(error, OURS):
        message, code, param = (
            "Something went wrong inside the gateway; the request id names it in the logs.",
            None,
            None,
        )
        return _document(message, kind, param, code or "internal_error", {})
    extra: dict[str, object] = {}
    if isinstance(error, adapter_errors.Rejected):
        extra["reasons"] = [
            {"code": r.code, "field": r.field, "found": r.found, "allowed": r.allowed, "advice": r.advice}
            for r in error.reasons
        ]
    if isinstance(error, WITH_REASONS):
        extra["reasons"] = list(error.reasons)
    return _document(str(error), kind, getattr(error, "param", None), error.code, extra)


def headers(error: Exception) -> list[Header]:
    """When to come back, and whether to try at all."""
    found: list[Header] = []
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        found.append((b"retry-after-ms", b"%d" % math.ceil(retry_after_s * 1e3)))
        found.append((b"retry-after", b"%d" % math.ceil(retry_after_s)))
    if status(error)[0] in (409, 429) and not getattr(error, "retryable", False):
        found.append((b"x-should-retry", b"false"))
    return found


def event(error: Exception) -> bytes:
    """The same error inside a stream that has begun."""
    return b"data: " + body(error) + b"\n\n"


def _document(message: str, kind: str, param: object, code: str, extra: dict[str, object]) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code, **extra}})
