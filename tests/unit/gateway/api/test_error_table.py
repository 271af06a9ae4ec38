"""Every error of ours has a status and a body in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from adapters.errors import Conflict, Reason, Rejected
from gateway.access.errors import BudgetSpent, LedgerInUse, OverQuota
from gateway.api import errors
from gateway.api.openai.endpoint import _duration
from gateway.engines.errors import AdapterMissing, EngineRefused
from gateway.errors import AdapterUnavailable, BadField

#: Met when a process starts, before there is a client.
INTERNAL = {LedgerInUse}


def every(cls: type[Exception]) -> Iterator[type[Exception]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from every(sub)


def test_what_may_work_later_is_never_told_as_a_fault_of_ours_alone() -> None:
    """A retryable error has a status that clients retry."""
    for root in errors.OURS:
        for cls in every(root):
            if not getattr(cls, "retryable", False) or issubclass(cls, EngineRefused):
                continue
            status = next(errors.STATUS[c] for c in cls.__mro__ if issubclass(c, Exception) and c in errors.STATUS)[0]
            assert status in (429, 502, 503, 504) or cls in INTERNAL, cls


def test_bodies_have_openai_s_shape() -> None:
    body = orjson.loads(errors.body(BadField("no", param="n")))
    assert body == {"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}}
    assert errors.event(BadField("no")).startswith(b'data: {"error":{')


def test_an_unforeseen_error_says_nothing_of_its_insides() -> None:
    secret = KeyError("gl-secret")
    assert errors.status(secret) == (500, "server_error")
    assert b"secret" not in errors.body(secret)
    assert orjson.loads(errors.body(secret))["error"]["code"] == "internal_error"


def test_a_rejected_adapter_carries_every_reason() -> None:
    reason = Reason(code="c", field="f", found="x", allowed="y", advice="z")
    found = orjson.loads(errors.body(Rejected([reason, reason])))["error"]
    assert found["reasons"] == [reason.document()] * 2
    assert errors.status(Rejected([reason]))[0] == 422


def test_when_to_come_back_and_whether_at_all() -> None:
    over = OverQuota("requests", limit=1, used=1, requested=1, retry_after_s=1.2)
    assert errors.headers(over) == [(b"retry-after-ms", b"1200"), (b"retry-after", b"2")]
    spent = BudgetSpent("budget", limit=1, used=1, requested=1)
    assert errors.headers(spent) == [(b"x-should-retry", b"false")]
    assert errors.headers(Conflict("moved")) == [(b"x-should-retry", b"false")]
    assert (b"retry-after", b"2") in errors.headers(AdapterUnavailable("x", retry_after_s=2))
    assert errors.headers(BadField("no")) == []


def test_an_engine_s_refusal_keeps_its_status() -> None:
    assert errors.status(EngineRefused("no", status=400, code="x")) == (400, "invalid_request_error")
    assert errors.status(EngineRefused("no", status=500, code="x")) == (500, "server_error")
    assert errors.status(AdapterMissing("no"))[0] == 404


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, b"0ms"), (0.0125, b"12ms"), (3.5, b"3.5s"), (59.96, b"60s"), (60, b"1m0s"), (361, b"6m1s")],
)
def test_durations_are_spelled_as_openai_does(seconds: float, text: bytes) -> None:
    assert _duration(seconds) == text
