"""Who calls a control route, and the state that the route works on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from gateway.access.identify import require, token
from gateway.access.keys import Key, Role
from gateway.control import Control
from gateway.pipeline import Gateway, current
from gateway.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What control routes share."""

    gateway: Gateway
    control: Control
    settings: Settings


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
