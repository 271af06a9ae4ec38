"""What may go wrong between the gateway and an engine.

    EngineError
    ├── EngineUnreachable     no connection, or it was closed without one byte of answer    engine_unreachable
    ├── EngineBroke           the answer broke off, or was not HTTP                         engine_broke
    ├── EngineTimeout         no head, or a silence within the answer, past its limit       engine_timeout
    └── EngineRefused         the engine answered with an error of its own                  the OpenAI error code
        ├── AdapterMissing    it does not know the model name asked for                     model_not_found
        └── EnginePoisoned    it ended the request, whose logits were not numbers           engine_poisoned

`retryable` says whether another replica may succeed, which only matters before the first byte has gone to a client.
"""

from __future__ import annotations


class EngineError(Exception):
    """`engine` is the name of the replica; it belongs in logs and records, not in what a client reads."""

    code = "engine_error"
    retryable = True

    def __init__(self, message: str, *, engine: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.engine = engine


class EngineUnreachable(EngineError):
    code = "engine_unreachable"


class EngineBroke(EngineError):
    code = "engine_broke"


class EngineTimeout(EngineError):
    code = "engine_timeout"


class EngineRefused(EngineError):
    """`status` is what the engine said; `code`, `message` and `param` are already in OpenAI's words."""

    code = "engine_refused"

    def __init__(self, message: str, *, status: int, code: str, param: str | None = None, engine: str = "") -> None:
        super().__init__(message, engine=engine)
        self.status = status
        self.code = code
        self.param = param
        self.retryable = status >= 500


class AdapterMissing(EngineRefused):
    """The engine has forgotten, or never had, this adapter: load it again, or ask a replica that has it."""

    def __init__(self, message: str, *, status: int = 404, engine: str = "") -> None:
        super().__init__(message, engine=engine, status=status, code="model_not_found", param="model")
        self.retryable = True


class EnginePoisoned(EngineRefused):
    """The logits of this request were NaN, so the engine ended it; what else it answers may not be trusted any more.

    `at` is the engine's clock. `first_at` and `first` say when it saw NaN for the first time since its start, and whose
    requests those were: engine-side names, an empty one where nobody knows any more. 0 and nobody: it did not say.
    `contained`: it has zeroed what every such request left in its cache, so no other is touched.
    """

    def __init__(
        self,
        message: str,
        *,
        at: float = 0.0,
        first_at: float = 0.0,
        first: tuple[str, ...] = (),
        contained: bool = False,
        engine: str = "",
    ) -> None:
        super().__init__(message, engine=engine, status=500, code="engine_poisoned")
        self.retryable = False
        self.at, self.first_at, self.first, self.contained = at, first_at, first, contained
