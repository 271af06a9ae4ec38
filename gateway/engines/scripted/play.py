"""How the scripted engine plays one answer: token by token at its pace, or badly as its cues say."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.engines.scripted import cues, responses, rules, wording
from gateway.engines.scripted.cues import Cues
from gateway.engines.scripted.rules import Ask
from gateway.engines.scripted.values import Reply, Request
from gateway.engines.scripted.wording import Asked

_WORDS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One answer to play: who was asked, with what cues, and the tokens of every choice."""

    ask: Ask
    told: Cues
    asked: Asked
    texts: Sequence[Sequence[str]]
    finish: str


def compose(request: Request, ask: Ask, told: Cues, model: str, says: str) -> Part:
    """What will be said. Raises `Refused` where vLLM would fail to write not-a-number as JSON."""
    if told.nan and told.fault != "nan" and (ask.logprobs or ask.prompt_logprobs) and not ask.stream:
        raise rules.bad("Out of range float values are not JSON compliant", None)
    asked = Asked(
        kind=ask.kind,
        id=f"{'chatcmpl' if ask.kind == 'chat' else 'cmpl'}-{request.request_id or uuid.uuid4().hex[:16]}",
        created=int(time.time()),
        model=model,
        prompt_tokens=ask.prompt_tokens,
        logprobs=ask.logprobs,
        prompt_logprobs=ask.prompt_logprobs,
    )
    spoken = [tokens(ask, told, says, text) for text in ask.texts for _ in range(ask.n)]
    return Part(ask=ask, told=told, asked=asked, texts=[said for said, _ in spoken], finish=spoken[0][1])


def tokens(ask: Ask, told: Cues, says: str, text: str) -> tuple[list[str], str]:
    """One choice and why it ends: who speaks, then what was heard; a natural end is an empty token, as in vLLM."""
    words = [says, *(told.say or f"heard {cues.without(text)}").split()[:_WORDS_MAX]]
    if told.tokens:
        words = _cycle(words, told.tokens - 1)
    if ask.forced:
        words = _cycle(words, ask.max_tokens)
    said = [word if at == 0 else f" {word}" for at, word in enumerate(words)]
    if len(said) >= ask.max_tokens:
        return said[: ask.max_tokens], "length"
    return [*said, ""], "stop"


class Player:
    """Plays parts and counts tokens. `die` is what happens at `[[die]]`; `poisoned` words the NaN of a model."""

    def __init__(self, die: Callable[[], None], poisoned: Callable[[str], str] = str) -> None:
        self.tokens = 0
        self._die, self._poisoned = die, poisoned

    async def play(self, part: Part, reply: Reply, *, as_response: bool) -> None:
        told, stream = part.told, part.ask.stream
        await asyncio.sleep(told.slow_s)
        if told.fault and (not stream or (told.fault_at == 0 and told.fault != "nan")):
            await asyncio.sleep(told.ttft_s + told.pace_s * told.fault_at)
            await self._strike(part, reply, began=False)
        elif as_response:
            await self._respond(part, reply)
        elif stream:
            await self._stream(part, reply)
        else:
            await asyncio.sleep(told.ttft_s + told.pace_s * (max(map(len, part.texts)) - 1))
            self.tokens += sum(map(len, part.texts))
            reply.whole(200, wording.whole(part.asked, part.texts, part.finish, part.ask.texts[0].split()))

    async def _stream(self, part: Part, reply: Reply) -> None:
        ask, told = part.ask, part.told
        reply.begin()
        held = wording.first_events(part.asked, len(part.texts))
        for at in range(max(map(len, part.texts))):
            await asyncio.sleep(told.pace_s if at else told.ttft_s)
            if told.fault and at == told.fault_at:
                # the head is sent before the engine works, the roles with the first token
                await self._write(held if at else [], told, reply)
                await self._strike(part, reply, began=True)
                return
            held += [self._token(part, index, at) for index, said in enumerate(part.texts) if at < len(said)]
            if len(held) >= told.merge:
                await self._write(held, told, reply)
                held = []
        if ask.usage:
            held.append(wording.usage_event(part.asked, sum(map(len, part.texts))))
        await reply.event(b"".join([*held, wording.DONE]), split=told.split)
        reply.end()

    def _token(self, part: Part, index: int, at: int) -> bytes:
        self.tokens += 1
        said = part.texts[index]
        ended = at == len(said) - 1
        finish = part.finish if ended else None
        return wording.token_event(part.asked, index, at, said[at], finish, ended and not part.ask.usage)

    async def _write(self, held: list[bytes], told: Cues, reply: Reply) -> None:
        """Each event is a chunk of its own, unless told to merge."""
        for event in [b"".join(held)] if told.merge > 1 and held else held:
            await reply.event(event, split=told.split)

    async def _respond(self, part: Part, reply: Reply) -> None:
        told, said = part.told, part.texts[0]
        asked = replace(part.asked, id=uuid.uuid4().hex[:16])  # vLLM makes up its own here
        self.tokens += len(said)
        if not part.ask.stream:
            await asyncio.sleep(told.ttft_s + told.pace_s * (len(said) - 1))
            reply.whole(200, responses.whole(asked, said, part.finish))
            return
        reply.begin()
        for at, event in enumerate(responses.events(asked, said, part.finish)):
            await asyncio.sleep(told.pace_s if at else told.ttft_s)
            if told.fault and at == told.fault_at:
                if told.fault == "nan":  # our plugin's doing
                    await reply.event(b"event: error\n" + wording.stream_error(self._poisoned(part.asked.model)))
                    reply.end()
                    return
                # vLLM has no in-band error here: when its core dies, the socket closes
                cut = replace(part, told=replace(told, fault="cut"))
                await self._strike(cut if told.fault == "error" else part, reply, began=True)
                return
            await reply.event(event, split=told.split)
        reply.end()

    async def _strike(self, part: Part, reply: Reply, *, began: bool) -> None:
        """Misbehave as told, before the head or within a stream."""
        match part.told.fault:
            case "hang":
                await asyncio.Event().wait()
            case "die":
                self._die()
            case "cut":
                reply.cut()
            case "garbage":
                reply.raw(b"zz\r\nthis is not HTTP\r\n")
            case "error" | "nan" if began:
                nan = part.told.fault == "nan"
                words = self._poisoned(part.asked.model) if nan else wording.CORE_DEAD
                await reply.event(wording.stream_error(words))
                await reply.event(wording.DONE)
                reply.end()
            case "nan":
                words = self._poisoned(part.asked.model)
                reply.whole(500, wording.error(500, "Internal Server Error", words))
            case _:
                reply.whole(500, wording.error(500, "InternalServerError", wording.CORE_DEAD))


def _cycle(words: Sequence[str], length: int) -> list[str]:
    return [words[at % len(words)] for at in range(length)]
