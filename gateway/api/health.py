"""`/healthz`, `/readyz`, `/metrics`: whether this process lives, whether it can answer, and what it counted."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from gateway.access.identify import require, token
from gateway.access.keys import Role
from gateway.api import errors
from gateway.api.openai.exchange import Receive, Send
from gateway.capture.outbox import Outbox
from gateway.errors import WrongMethod
from gateway.pipeline import Gateway
from gateway.settings import Settings
from monitoring.telemetry.render import render


class Health:
    """Three paths, each answered from memory."""

    paths = frozenset({"/healthz", "/readyz", "/metrics"})

    def __init__(self, gw: Gateway, outbox: Outbox, settings: Settings) -> None:
        self._gw, self._outbox, self._settings = gw, outbox, settings

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        kind = b"application/json"
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise WrongMethod(f"{scope['path']} takes GET.")
            if scope["path"] == "/healthz":
                status, data = 200, b'{"status":"alive"}'
            elif scope["path"] == "/readyz":
                status, data = self.ready()
            else:
                self._may_read_metrics(scope)
                status, data = 200, await asyncio.to_thread(render, self._settings.metrics)
                kind = b"text/plain; version=0.0.4; charset=utf-8"
        except errors.OURS as error:
            status, data = errors.status(error)[0], errors.body(error)
        head = [(b"content-type", kind), (b"content-length", b"%d" % len(data)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})

    def ready(self) -> tuple[int, bytes]:
        """200 when a request for the base would be sent to an engine now, else 503; adapters and alarms in the body.

        An adapter that no engine serves makes the answer `degraded`, not unready: the others are served all the same.
        """
        gw = self._gw
        snapshot, up = gw.watcher.snapshot, gw.replicas.up()
        fresh = gw.watcher.age_s <= self._settings.snapshot_age_max_s
        held: set[str] = set()
        for replica, names in snapshot.residents.items():
            if up.get(replica) and replica not in snapshot.out:
                held |= names
        missing = sorted(snapshot.wanted - held)
        alarms = []
        if self._outbox.dropped:
            alarms.append(f"records_dropped: {self._outbox.dropped}")
        if self._outbox.refused:
            alarms.append("spool_refused: records wait in memory")
        if ignored := gw.replicas.pins_ignored:
            alarms.append(f"pins_ignored: no slot can be spared for {', '.join(ignored[:20])}")
        if gw.watcher.failing:
            alarms.append(f"control_database_away: snapshot is {gw.watcher.age_s:.0f} s old")
        alarms += [f"replica_out: {name}, {why}" for name, why in snapshot.out.items() if name in up]
        can = fresh and any(well and name not in snapshot.out for name, well in up.items())
        document = {
            "status": "unready" if not can else "degraded" if missing or alarms else "ready",
            "engines": {name: _standing(well, name in snapshot.out) for name, well in up.items()},
            "adapters": {"wanted": len(snapshot.wanted), "missing": missing[:20]},
            "snapshot": gw.watcher.describe(),
            "alarms": alarms,
            "at": time.time(),
        }
        return (200 if can else 503), orjson.dumps(document)

    def _may_read_metrics(self, scope: Any) -> None:
        if self._settings.metrics_key_required:
            bearer = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
            key = self._gw.watcher.snapshot.keyring.find(token(bearer), time.time())
            require(key, Role.OPERATOR, Role.AUDITOR)


def _standing(well: bool, out: bool) -> str:
    return "down" if not well else "out" if out else "up"
