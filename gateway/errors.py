"""What may go wrong on the way through the gateway.

    GatewayError
    ├── BadRequest            the request cannot be understood or is out of bounds   invalid_request …
    │   ├── BadJson           not JSON, not UTF-8, not an object
    │   ├── UnknownField      a field that no part of this gateway or engine takes
    │   ├── BadField          a field of the wrong type or out of range
    │   └── TooLarge          a body, head or list past its limit
    ├── UnknownModel          no such base, alias or version, or not allowed to this key
    ├── UnknownRoute          no such path
    ├── WrongMethod           the path exists, the method does not
    ├── ClientTimeout         the client was too slow to send its request
    ├── UnknownCompletion     no stored chat completion of that id in the caller's tenant
    ├── TooMuchFeedback       one rater said more than a minute allows
    ├── FeedbackNotKept       the disk refused what was said; it has to be said again
    ├── NoCapacity            too many requests at once, or no replica can take one
    ├── AdapterUnavailable    the version exists and no replica serves it now
    ├── EngineFailed          every replica that was tried failed before the first byte
    ├── AdapterDiverged       this version's numbers were not finite for this request
    └── StaleSnapshot         control state is too old to vouch for a key

`code` is stable and public. `param` names the field at fault. HTTP status stands in `gateway/api/errors.py` alone.
"""

from __future__ import annotations


class GatewayError(Exception):
    code = "internal_error"
    retryable = False
    param: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if param is not None:
            self.param = param
        if code is not None:
            self.code = code


class BadRequest(GatewayError):
    code = "invalid_request"


class BadJson(BadRequest):
    code = "invalid_json"


class UnknownField(BadRequest):
    code = "unknown_parameter"


class BadField(BadRequest):
    code = "invalid_value"


class TooLarge(BadRequest):
    code = "request_too_large"


class UnknownModel(GatewayError):
    code = "model_not_found"
    param = "model"


class UnknownRoute(GatewayError):
    code = "unknown_url"


class WrongMethod(GatewayError):
    code = "method_not_allowed"


class ClientTimeout(GatewayError):
    code = "request_timeout"


class UnknownCompletion(GatewayError):
    code = "completion_not_found"

    def __init__(self, completion_id: str) -> None:
        super().__init__(
            f"There is no stored chat completion {completion_id[:128]!r}. Answers are stored where `store: true` was "
            "sent with a key that captures in full; a new one can be read a moment after it was given."
        )


class TooMuchFeedback(GatewayError):
    code = "feedback_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.retryable = retry_after_s is not None


class FeedbackNotKept(GatewayError):
    code = "feedback_not_kept"
    retryable = True
    retry_after_s = 1.0


class NoCapacity(GatewayError):
    code = "no_capacity"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AdapterUnavailable(NoCapacity):
    code = "adapter_unavailable"


class EngineFailed(NoCapacity):
    code = "engine_unavailable"


class AdapterDiverged(GatewayError):
    """Not to be tried again: the same version would poison the next engine too."""

    code = "adapter_diverged"
    param = "model"


class StaleSnapshot(GatewayError):
    code = "control_state_stale"
    retryable = True
