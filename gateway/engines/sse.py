"""Server-sent events on their way from the engine to the client: whole events only, as few changes as can be.

The engine writes one event a token and reads arrive at event boundaries, so a read is normally forwarded as it came,
with the engine's adapter name replaced by the name the client asked for. No object is built per token.
"""

from __future__ import annotations

import orjson

from gateway.engines.rewrite import LOGPROBS, stamped, with_refusal
from gateway.errors import GatewayError

END = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_NO_CHOICES = b'"choices":[]'
_ERROR = b'data: {"error"'
_RESPONSES_ENDS = (b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n")


class TornStream(GatewayError):
    """An event larger than any event may be: the engine is not speaking SSE."""

    code = "engine_error"


class Stream:
    """One stream's state. `feed` takes a read and returns the bytes to forward, possibly none.

    `usage` is the engine's usage event once seen; it reaches the client only if it asked for it. `error` is the
    engine's in-band error event once seen; it is never forwarded, the caller answers in our own words.
    """

    __slots__ = ("_asked", "_drop_usage", "_fingerprint", "_named", "_responses", "_rest", "done", "error", "usage")

    REST_MAX = 4 << 20

    def __init__(
        self, *, engine_name: str, model: bytes, wants_usage: bool, responses: bool = False, fingerprint: bytes = b""
    ) -> None:
        """`model` is the asked name as JSON, quotes included; `responses`: events of the Responses API, which end
        with one that holds the whole answer instead of `[DONE]`."""
        self._named = b'"model":"' + engine_name.encode() + b'"'
        self._asked = b'"model":' + model
        self._drop_usage = not wants_usage
        self._responses = responses
        self._fingerprint = fingerprint
        self._rest = b""
        self.done = False
        self.error = b""
        self.usage = b""

    @property
    def error_status(self) -> int:
        """The HTTP status that the engine's error event stands for; 500 where it does not say."""
        try:
            status = orjson.loads(self.error)["error"]["code"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return 500
        return status if type(status) is int and 400 <= status <= 599 else 500

    def feed(self, chunk: bytes) -> bytes:
        """Whole events that may go out now. Raises `TornStream` on an endless event."""
        if self._rest:
            chunk = self._rest + chunk
            self._rest = b""
        if chunk[-2:] != b"\n\n":
            end = chunk.rfind(b"\n\n") + 2
            if end == 1:
                end = 0
            self._rest = chunk[end:]
            chunk = chunk[:end]
            if len(self._rest) > self.REST_MAX:
                raise TornStream("The engine sent an event that never ends.")
            if not chunk:
                return b""
        if self._named != self._asked:
            chunk = chunk.replace(self._named, self._asked)
        if LOGPROBS in chunk:
            chunk = with_refusal(chunk)
        if _NO_CHOICES in chunk or _ERROR in chunk:
            chunk = self._sift(chunk)
        if self._responses:
            if any(end in chunk for end in _RESPONSES_ENDS):
                self.done, self.usage = True, chunk
        elif chunk[-len(END) :] == END:
            self.done = True
        return chunk

    def _sift(self, chunk: bytes) -> bytes:
        """Take usage and error events out of a read that holds one; rare, so it may be slow."""
        kept = []
        for event in chunk.split(b"\n\n")[:-1]:
            if (at := event.find(_ERROR)) >= 0:  # behind `event: error` in the Responses API
                self.error = event[at + len(b"data: ") :]
                break
            if event.startswith(b"data: {") and _NO_CHOICES in event and b'"usage":{' in event:
                self.usage = event[len(b"data: ") :]
                if self._drop_usage:
                    continue
                event = stamped(event, self._fingerprint)
            kept.append(event)
        return b"".join(event + b"\n\n" for event in kept)
