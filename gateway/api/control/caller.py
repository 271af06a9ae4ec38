"""Who calls a control route, and the state that the route works on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from gateway.access.identify import require, token
from gateway.access.keys import Key, Role
from gateway.control import Control
from gateway.pipeline import Gateway, current
from gateway.settings import Settings
from monitoring.records.spool import Spool
from monitoring.records.store import Records
from monitoring.telemetry.shared import Metrics
from training.files.sources import Shelves
from training.files.store import Files
from training.jobs.store import Jobs

#: All routes share one small pool of threads: what may take minutes gets a part of it, or a few slow sources would keep
#: everybody from promoting, rolling back and revoking.
ARRIVALS_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What control routes share. `spool` is their own way into the records, `secret` keys pseudonyms, `fetching` and
    `unpacking` are the places for adapters that arrive."""

    gateway: Gateway
    control: Control
    settings: Settings
    records: Records
    spool: Spool
    metrics: Metrics
    secret: bytes
    fetching: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ARRIVALS_MAX))
    unpacking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ARRIVALS_MAX))

    @property
    def files(self) -> Files:
        return self.control.files

    @property
    def shelves(self) -> Shelves:
        return self.control.shelves

    @property
    def jobs(self) -> Jobs:
        return self.control.jobs


def plane(request: Request) -> Plane:
    found: Plane = request.app.state.plane
    return found


def having(*roles: Role) -> Callable[[Request], Key]:
    """A dependency: the caller's key, which must have one of these roles."""

    def caller(request: Request) -> Key:
        header = request.headers.get("authorization", "").encode("latin-1")
        snapshot = current(plane(request).gateway)
        key = snapshot.keyring.find(token(header), time.time())
        require(key, *roles)
        return key

    return caller


InPlane = Annotated[Plane, Depends(plane)]
AnyCaller = Annotated[Key, Depends(having(*Role))]
Engineer = Annotated[Key, Depends(having(Role.ENGINEER))]
Reader = Annotated[Key, Depends(having(Role.ENGINEER, Role.OPERATOR, Role.AUDITOR))]
Operator = Annotated[Key, Depends(having(Role.OPERATOR))]
KeyReader = Annotated[Key, Depends(having(Role.OPERATOR, Role.AUDITOR))]
