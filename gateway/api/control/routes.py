"""The control app: its routers, who may call them, and every error in OpenAI's shape."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from gateway.api import errors
from gateway.api.control import (
    adapters,
    approvals,
    completions,
    experiments,
    feedback,
    files,
    fine_tuning,
    keys,
    models,
    review,
)
from gateway.api.control.caller import Plane
from gateway.errors import BadRequest, GatewayError, UnknownRoute, WrongMethod
from gateway.saying import Saying

log = logging.getLogger("graftline.control")

ROUTERS = (
    models.router,
    adapters.router,
    keys.router,
    experiments.router,
    approvals.router,
    feedback.router,
    completions.router,
    review.router,
    files.router,
    fine_tuning.router,
)


def control_app(plane: Plane) -> FastAPI:
    """The FastAPI app of one process."""
    app = FastAPI(title="Graftline", docs_url=None, redoc_url=None, openapi_url="/openapi.json", redirect_slashes=False)
    app.state.plane = plane
    app.state.waiting = asyncio.Semaphore(completions.WAITING_MAX)
    app.state.saying = Saying(
        plane.spool,
        plane.secret,
        per_rater_per_min=plane.settings.feedback_per_rater_per_min,
        metrics=plane.metrics,
    )
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _not_valid)
    for cls in errors.OURS:
        app.add_exception_handler(cls, _answer)
    app.add_exception_handler(Exception, _unforeseen)
    return app


async def _answer(request: Request, error: Exception) -> Response:
    status, _ = errors.status(error)
    headers = {k.decode(): v.decode() for k, v in errors.headers(error)}
    if status in (408, 413):  # there may be more of the body to come, and nobody will read it
        headers["connection"] = "close"
    return Response(errors.body(error), status, headers, media_type="application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, errors.OURS):  # met while FastAPI read the body, which it reports in its own words
        return await _answer(request, error.__cause__)
    what = f"{request.method} {request.url.path[:200]}"
    wrapped: GatewayError
    if error.status_code == 404:
        wrapped = UnknownRoute(f"Unknown request URL: {what}. The README lists the routes.")
    elif error.status_code == 405:
        wrapped = WrongMethod(f"{request.url.path[:200]} does not take {request.method}.")
    else:
        wrapped = BadRequest(str(error.detail))
    return await _answer(request, wrapped)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found: list[dict[str, Any]] = list(error.errors())
    lines = [f"{'.'.join(str(p) for p in e['loc'] if p != 'body')}: {e['msg']}" for e in found]
    param = ".".join(str(part) for part in found[0]["loc"] if part != "body") or None
    return await _answer(request, BadRequest("; ".join(lines), param=param, code="invalid_value"))


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request.scope.get("graftline.request_id"), exc_info=error)
    return await _answer(request, error)
