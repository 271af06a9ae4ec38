"""Where `graftline review` works: on this machine's rows, or at a gateway elsewhere. Both take and give the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from gateway import reviewing, reviewing_picks
from gateway.api.control import review_documents as documents
from gateway.api.control.review import EXPORT_MAX, Picks, Spoken, spoken, wished
from gateway.control import open_control, pseudonym_secret
from gateway.reviewing import Desk
from gateway.settings import load
from gateway.verbs.elsewhere import Door, door
from monitoring.records.spool import Spool
from monitoring.records.sql import SqlRecords
from monitoring.review.label_studio import TASK, exported
from monitoring.review.label_studio_import import imported
from monitoring.review.values import Kind, State

WHO = "cli"
Found = dict[str, Any]


class Place(Protocol):
    """What the routes of `/v1/review` do, and their documents."""

    def pick(self, body: Picks) -> Found: ...
    def following(self, reviewer: str, kind: Kind | None) -> Found: ...
    def answer(self, task: str, body: Spoken) -> Found: ...
    def skip(self, task: str, reviewer: str) -> Found: ...
    def list(self, state: State, limit: int) -> Found: ...
    def agreement(self) -> Found: ...
    def export(self, kind: Kind, state: State) -> Iterator[Found]: ...
    def bring(self, file: Path) -> Found: ...


@contextmanager
def place(url: str, key_file: Path | None, tenant: str) -> Iterator[Place]:
    """Elsewhere the tenant is the key's."""
    if url:
        yield There(at=door(url, key_file))
        return
    settings = load(os.environ)
    records = SqlRecords(settings.records_url or settings.home.absolute() / "records")
    spool = Spool(settings.spool, WHO)
    try:
        yield Here(
            tenant=tenant,
            desk=Desk(
                store=open_control(settings).reviews,
                records=records,
                spool=spool,
                secret=pseudonym_secret(settings),
                claim_s=settings.review_claim_s,
            ),
        )
    finally:
        spool.close()
        records.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    desk: Desk
    tenant: str

    def pick(self, body: Picks) -> Found:
        now = time.time()
        wish = wished(body, now)
        return documents.picked(
            reviewing_picks.pick(self.desk, self.tenant, wish, who=WHO, now=now, dry_run=body.dry_run)
        )

    def following(self, reviewer: str, kind: Kind | None) -> Found:
        return documents.claim(reviewing.following(self.desk, self.tenant, reviewer, now=time.time(), kind=kind))

    def answer(self, task: str, body: Spoken) -> Found:
        said, now = spoken(body), time.time()
        return documents.task(reviewing.answer(self.desk, self.tenant, task, body.reviewer, said, body.choice, now=now))

    def skip(self, task: str, reviewer: str) -> Found:
        return documents.task(reviewing.skip(self.desk, self.tenant, task, reviewer, now=time.time()))

    def list(self, state: State, limit: int) -> Found:
        return documents.listed(self.desk.store.list(self.tenant, state=state, limit=limit), more=False)

    def agreement(self) -> Found:
        return documents.agreement(self.desk.store.answers(self.tenant))

    def export(self, kind: Kind, state: State) -> Iterator[Found]:
        after = ""
        while items := reviewing.exports(self.desk, self.tenant, state=state, kind=kind, after=after, limit=EXPORT_MAX):
            yield from exported(items)
            after = items[-1].task.id

    def bring(self, file: Path) -> Found:
        return documents.imported(reviewing.bring(self.desk, self.tenant, file.read_bytes(), now=time.time()))


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    at: Door

    def pick(self, body: Picks) -> Found:
        return self.at.post("/v1/review/picks", body.model_dump(mode="json"))

    def following(self, reviewer: str, kind: Kind | None) -> Found:
        return self.at.post("/v1/review/next", {"reviewer": reviewer, "kind": kind and str(kind)})

    def answer(self, task: str, body: Spoken) -> Found:
        return self.at.post(f"/v1/review/{task}/answer", body.model_dump(mode="json"))

    def skip(self, task: str, reviewer: str) -> Found:
        return self.at.post(f"/v1/review/{task}/skip", {"reviewer": reviewer})

    def list(self, state: State, limit: int) -> Found:
        return self.at.get("/v1/review", state=state, limit=limit)

    def agreement(self) -> Found:
        return self.at.get("/v1/review/agreement")

    def export(self, kind: Kind, state: State) -> Iterator[Found]:
        after = ""
        while True:
            page: Any = self.at.get("/v1/review/export", kind=str(kind), state=state, after=after, limit=EXPORT_MAX)
            yield from page
            if not page:
                return
            after = page[-1]["data"][TASK]

    def bring(self, file: Path) -> Found:
        data = file.read_bytes()
        imported(data)  # what no gateway takes is not sent
        return self.at.post("/v1/review/import", orjson.loads(data))
