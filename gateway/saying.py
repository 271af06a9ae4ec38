"""Where feedback is said: checked, made pseudonymous, redacted, and on the disk itself before anybody is told so.

Nothing here looks for the answer that is spoken of: a made-up id, another tenant's and one that is not recorded yet are
all the same, until the analysis joins what was said with its own tenant's answers.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.access.pace import Pace
from gateway.capture.compose import keyed, pseudonym
from gateway.control import pseudonym_secret
from gateway.errors import FeedbackNotKept, TooMuchFeedback, UnknownCompletion
from gateway.settings import Settings
from gateway.words import Source, Speaker, Word, checked, mirrored, mirrored_at_first
from monitoring.records.errors import NotFound, SpoolFull
from monitoring.records.events import Event, Feedback, Inference, encode, from_parts, moment, uuid7
from monitoring.records.spool import Spool
from monitoring.records.store import Intake
from monitoring.records.stored import Stored, clean
from monitoring.safety.redact import redact
from monitoring.telemetry.shared import Metrics

#: Ids of answers as engines make them; nothing else a caller may name is kept as it is.
_COMPLETION = re.compile(r"(?:chatcmpl|cmpl|resp)[-_][0-9A-Za-z-]{1,128}")
_PSEUDONYM = re.compile(r"hmac:[0-9a-f]{32}")


class Saying:
    """One per process; safe in several threads."""

    def __init__(
        self,
        spool: Spool,
        secret: bytes,
        *,
        per_rater_per_min: int,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spool, self._secret, self._metrics, self._clock = spool, secret, metrics, clock
        self._pace = Pace(per_rater_per_min)
        self._turn = threading.Lock()

    def say(
        self, words: Sequence[Word], speaker: Speaker, *, source: Source = "api", batch: bool = False
    ) -> list[Feedback]:
        """Keep all of these words, or raise and keep none: BadField, TooLarge, Forbidden, TooMuchFeedback,
        FeedbackNotKept. When it returns they are on the disk."""
        if not words:
            return []
        kept = [checked(word, speaker, f"items.{at}." if batch else "") for at, word in enumerate(words)]
        now = self._clock()
        said = [_event(word, speaker, source, self._secret, now) for word in kept]
        self._admit(said)
        try:
            self._spool.append([encode(each) for each in said], sync=True)
        except SpoolFull as problem:
            self._refused("disk")
            raise FeedbackNotKept(
                "The feedback could not be written to the disk and was not accepted. Send it again."
            ) from problem
        self._heard(said)
        return said

    def _admit(self, said: Sequence[Feedback]) -> None:
        counts: Counter[Hashable] = Counter((each.tenant, each.rater_kind, each.rater or each.key_id) for each in said)
        with self._turn:
            wait_s = self._pace.take(counts, self._clock())
        if wait_s != 0.0:
            self._refused("pace")
            when = "Send it in smaller parts." if wait_s is None else f"Try again in {wait_s:.0f} s."
            raise TooMuchFeedback(
                f"One rater may say {self._pace.per_min} things a minute (setting feedback_per_rater_per_min); this is "
                f"more, and nothing of it was kept. {when} Words without a 'rater' count as the key's.",
                retry_after_s=wait_s,
            )

    def _heard(self, said: Sequence[Feedback]) -> None:
        if self._metrics is not None:
            with self._turn:
                for each in said:
                    self._metrics.counter("graftline_feedback_total", kind=each.kind, source=each.source).add()

    def _refused(self, why: str) -> None:
        if self._metrics is not None:
            with self._turn:
                self._metrics.counter("graftline_feedback_refused_total", why=why).add()


def about(target: str, secret: bytes) -> str:
    """The name under which a target is kept, for looking it up."""
    return _target(clean(target), "full", secret)


def say_here(settings: Settings, words: Sequence[Word], speaker: Speaker) -> list[Feedback]:
    """Say it on this machine, without a gateway: into a spool of its own that the worker empties."""
    spool = Spool(settings.spool, f"cli-{os.getpid()}")
    try:
        saying = Saying(spool, pseudonym_secret(settings), per_rater_per_min=settings.feedback_per_rater_per_min)
        return saying.say(words, speaker)
    finally:
        spool.close()


def relabel(
    stored: Stored, saying: Saying, speaker: Speaker, completion_id: str, metadata: Mapping[str, str]
) -> Inference:
    """Replace a stored completion's metadata; what its reserved keys say is kept as feedback first. So a caller who is
    told of a failure says the same again, and what was said twice counts once. Raises UnknownCompletion."""
    try:
        event = stored.stored_one(completion_id, speaker.tenant)
        saying.say(mirrored(event, metadata), speaker, source="sdk")
        kept = {key: redact(text).text for key, text in metadata.items()}
        return stored.relabel(completion_id, speaker.tenant, kept)
    except NotFound:
        raise UnknownCompletion(completion_id) from None


class Mirroring:
    """An intake that also stores what the metadata of new stored completions says of them, with the same offset.

    Ids follow from the record's, so what is read twice is stored once.
    """

    def __init__(self, store: Intake) -> None:
        self._store = store

    def ingest(self, file: str, offset: int, events: Sequence[Event]) -> None:
        said = [each for event in events if isinstance(event, Inference) for each in at_first(event)]
        self._store.ingest(file, offset, [*events, *said] if said else events)

    def offset(self, file: str) -> int:
        return self._store.offset(file)

    def forget(self, file: str) -> None:
        self._store.forget(file)


def at_first(event: Inference) -> list[Feedback]:
    """What a stored completion's first metadata says of it; names and texts in it are pseudonymous and redacted."""
    return [
        replace(
            _event(word, Speaker(tenant=event.tenant, key_id=event.key_id), "sdk", b"", event.started_at),
            id=_following(event.id, word),
            target=event.completion_id,
            rater=event.user,
        )
        for word in mirrored_at_first(event)
    ]


def _event(word: Word, speaker: Speaker, source: Source, secret: bytes, now: float) -> Feedback:
    return Feedback(
        id=uuid7(),
        at=now,
        tenant=speaker.tenant,
        target=_target(word.target, speaker.capture, secret),
        target_kind=word.target_kind,
        kind=word.kind,
        name=word.name,
        rater=_name(word.rater, speaker.capture, secret),
        rater_kind=word.rater_kind,
        value=word.value,
        text=None if not word.text else redact(word.text).text,
        other=None if not word.other else _target(word.other, speaker.capture, secret),
        key_id=speaker.key_id,
        source=source,
    )


def _target(name: str, capture: str, secret: bytes) -> str:
    return name if _COMPLETION.fullmatch(name) else _name(name, capture, secret)


def _name(name: str, capture: str, secret: bytes) -> str:
    """As `Inference` and `Exposure` have it, or the two would never meet."""
    if not name or _PSEUDONYM.fullmatch(name):
        return name
    return keyed(name, secret) if capture == "off" else pseudonym(name, secret)


def _following(record_id: str, word: Word) -> str:
    """An id of the same moment, and so the same month, that only this word of this record has."""
    noise = hashlib.blake2b("\0".join((record_id, word.kind, word.name)).encode(), digest_size=8).digest()
    return from_parts(round(moment(record_id) * 1000), int(record_id[15:18], 16), int.from_bytes(noise, "big") >> 2)


def document(said: Feedback) -> dict[str, Any]:
    """A word as it was kept."""
    return {
        "object": "feedback",
        "id": said.id,
        "created_at": said.at,
        "target": said.target,
        "target_kind": said.target_kind,
        "kind": said.kind,
        "name": said.name,
        "value": said.value,
        "text": said.text,
        "other": said.other,
        "rater": said.rater,
        "rater_kind": said.rater_kind,
        "key_id": said.key_id,
        "source": said.source,
    }
