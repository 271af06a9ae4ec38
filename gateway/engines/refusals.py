"""vLLM's error bodies, translated to OpenAI's fields: string codes, the client's field names, nothing of our insides.

Pure. What a client did wrong keeps the engine's explanation; what the engine did wrong does not.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import orjson

from gateway.engines import nan
from gateway.engines.errors import AdapterMissing, EngineRefused

_CHARS_MAX = 2_000
_CONTEXT = re.compile(
    r"maximum context length|cannot be greater than max_model_len|longer than the maximum model length"
)
_TAIL = re.compile(r" \(parameter=[^()]*(?:, value=.*)?\)$", re.DOTALL)
_LEADING_FIELD = re.compile(r"^([a-z][a-z_]*) must be ")
_WORKER = re.compile(r"Worker failed with error '(.*)', please check the stack trace", re.DOTALL)
_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)+[\w.@+-]*")
#: pydantic's words for a value of the wrong type.
_TYPE_ERRORS = re.compile(r"(_type|_parsing|_attributes_type|_from_float)$")
#: vLLM's names for what the client calls otherwise.
_PROMPTS = {"/v1/completions": "prompt", "/v1/responses": "input", "/v1/embeddings": "input"}


def translate(engine: str, status: int, body: bytes, path: str) -> EngineRefused:
    """What the engine meant by an answer that is not 200. Never raises."""
    message, kind, param = _fields(body)
    if path.endswith("_lora_adapter"):
        return _adapter_refusal(engine, status, message)
    if status == 404 and param == "model":
        return AdapterMissing("This engine does not serve the model asked for.", engine=engine)
    if status in (404, 405) and kind == "":
        return EngineRefused(
            f"The engine that serves this model has no {path or 'such endpoint'}.",
            engine=engine,
            status=404,
            code="unsupported_endpoint",
        )
    if nan.MARK in message:
        return nan.read(engine, message)
    if status >= 500 and status != 501:
        return EngineRefused(
            "The engine failed while it worked on this request.", engine=engine, status=status, code="engine_error"
        )
    code, message, param = _client_fault(status, message, param, path)
    return EngineRefused(
        message or f"The engine refused this request with status {status}.",
        engine=engine,
        status=status if status >= 400 else 502,
        code=code,
        param=param,
    )


def _fields(body: bytes) -> tuple[str, str, str | None]:
    """(message, type, param) of `{"error": {…}}`; type is empty for any other body, such as FastAPI's `detail`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", "", None
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        detail = document.get("detail") if isinstance(document, dict) else None
        return detail[:_CHARS_MAX] if isinstance(detail, str) else "", "", None
    message, kind, param = error.get("message"), error.get("type"), error.get("param")
    return (
        message[:_CHARS_MAX] if isinstance(message, str) else "",
        kind if isinstance(kind, str) and kind else "Error",
        param if isinstance(param, str) else None,
    )


def _adapter_refusal(engine: str, status: int, message: str) -> EngineRefused:
    """Load and unload are ours, not a client's: the engine's reason is kept whole, its paths are not."""
    if status == 404 and "cannot be found" in message:
        return AdapterMissing("This engine does not know the adapter.", engine=engine)
    why = _WORKER.search(message)
    return EngineRefused(
        f"The engine refused the adapter: {_PATH.sub('<path>', why[1] if why else message) or 'no reason given'}",
        engine=engine,
        status=status,
        code="adapter_path_not_found" if status == 404 else "adapter_refused",
    )


def _client_fault(status: int, message: str, param: str | None, path: str) -> tuple[str, str, str | None]:
    """(code, message, param) for what the client can mend."""
    prompt = _PROMPTS.get(path, "messages")
    if _CONTEXT.search(message):
        field = param if param and not param.startswith("input_") else prompt
        return "context_length_exceeded", _TAIL.sub("", message), field
    if " validation error" in message:
        return _invalid(message, param)
    if status == 501:
        return "unsupported_value", message, param
    if "empty conversation" in message:
        return "invalid_value", message, prompt
    if message.startswith("Either prompt or prompt_embeds"):
        return "missing_required_parameter", "`prompt` must be given and must not be empty.", "prompt"
    if message.startswith("Grammar error"):
        return "invalid_value", message, param or "response_format"
    if "tool choice requires" in message or "tool_choice" in message:
        return "unsupported_value", "This engine was started without a tool parser, so it cannot choose tools.", "tools"
    leading = _LEADING_FIELD.match(message)
    return "invalid_value", _TAIL.sub("", message), param or (leading[1] if leading else None)


def _invalid(message: str, param: str | None) -> tuple[str, str, str | None]:
    """FastAPI's validation errors, which vLLM prints as one Python dict a line."""
    found = []
    for line in message.splitlines()[1:]:
        try:
            problem: Any = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(problem, dict):
            found.append(problem)
    field = (param or "").removeprefix("body").lstrip(".")
    if not found:
        return "invalid_value", f"`{field}` is not valid." if field else "The request is not valid.", field or None
    kinds = {str(problem.get("type")) for problem in found}
    if kinds == {"missing"}:
        return (
            "missing_required_parameter",
            f"`{field}` is required." if field else "A body is required.",
            field or None,
        )
    told = dict.fromkeys(str(problem.get("msg")) for problem in found)
    shown = f"`{field}`: " if field else ""
    code = "invalid_type" if all(_TYPE_ERRORS.search(kind) for kind in kinds) else "invalid_value"
    return code, f"{shown}{'; '.join(told)} (found {str(found[0].get('input'))[:100]}).", field or None
