"""The probe where there is no torch: an engine by URL that serves nobody takes the adapter, answers, and forgets it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from adapters.checks.probe import Recorded, failed, recorded
from adapters.errors import ProbeAway, Reason, Rejected
from gateway.engines.errors import EngineError, EnginePoisoned, EngineRefused
from gateway.engines.vllm import Vllm
from training.probe.prompts import ANSWER_TOKENS, TURN_TOKENS_MAX, TURNS, shakes

#: An engine's kernels may round an adapter that does nothing a little away from the base.
EFFECT_MIN = 1e-3
#: How far the base may be from what it said before. Further: what a poisonous adapter left behind is still there.
_CLEAN = 0.05
#: Ids of low numbers are often special tokens.
_SPECIAL_IDS = 256


class QuarantineProber:
    """A `Prober` over an engine; its machine must see the adapter's folder under the same path."""

    def __init__(self, engine: Vllm, *, vocabulary: int, timeout_s: float = 30.0) -> None:
        """`vocabulary` is the base's `vocab_size`."""
        self._engine = engine
        self._vocabulary = vocabulary
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._asked: tuple[tuple[int, ...], ...] = ()
        self._base: list[tuple[float, ...]] = []
        #: The digest of the last adapter whose numbers were not finite: others may still answer with its leavings.
        self._tainted = ""
        self._started_at = 0.0

    async def probe(self, folder: Path, *, digest: str, may_do_nothing: bool = False, gently: bool = False) -> Recorded:
        began = time.monotonic()
        async with self._lock:
            await self._ready()
            name = f"probe@{digest.removeprefix('sha256:')[:16]}"
            try:
                async with asyncio.timeout(self._timeout_s):
                    rows = await self._try(name, folder, digest)
            except TimeoutError as error:  # just before, the base answered in time
                raise failed(f"it was still running after {self._timeout_s:g} s") from error
            except EngineError as error:
                raise await self._meant(error, digest) from error
        by = f"quarantine {self._engine.url}"
        seconds = time.monotonic() - began
        least = 0.0 if may_do_nothing else EFFECT_MIN
        return recorded(self._asked, rows, self._base, seconds=seconds, by=by, effect_min=least)

    async def close(self) -> None:
        await self._engine.close()

    async def _try(self, name: str, folder: Path, digest: str) -> list[tuple[float, ...]]:
        await self._engine.load(name, str(folder))
        try:
            rows = []
            for prompt in self._asked:
                answer = await self._engine.probe(name, prompt, tokens=1)
                if not answer.finite:
                    raise self._not_finite(digest)
                rows.append(answer.prompt_logprobs)
            return rows
        finally:
            await self._forget(name)

    async def _ready(self) -> None:
        """Ask the base, which also shows whether the engine is there and clean."""
        try:
            async with asyncio.timeout(self._timeout_s):
                started_at = (await self._engine.gauges()).started_at
                if started_at != self._started_at:  # a new engine remembers nothing, and nor do we
                    self._started_at, self._asked, self._base, self._tainted = started_at, (), [], ""
                base_name = (await self._engine.describe()).model
                asked = self._asked or await self._prompts(base_name)
                answers = [await self._engine.probe(base_name, prompt, tokens=1) for prompt in asked]
        except (EngineError, TimeoutError) as error:
            raise ProbeAway(f"The quarantine engine {self._engine.url} does not answer: {error}.") from error
        rows = [answer.prompt_logprobs for answer in answers]
        if not all(answer.finite for answer in answers) or (self._base and _apart(rows, self._base) > _CLEAN):
            raise ProbeAway(
                f"The quarantine engine {self._engine.url} no longer answers for its base as it did"
                f"{f', since it probed {self._tainted}' if self._tainted else ''}. Restart it."
            )
        if not self._base:
            self._asked, self._base = asked, rows

    async def _prompts(self, base_name: str) -> tuple[tuple[int, ...], ...]:
        dialogues = []
        for turn in TURNS:
            try:
                ids = (await self._engine.tokenize(base_name, turn))[-TURN_TOKENS_MAX:]
            except EngineRefused:  # no chat template, or no such route: the shaking alone must do
                break
            answer = await self._engine.probe(base_name, ids, tokens=ANSWER_TOKENS)
            dialogues.append([*ids, *answer.ids[:-1]])
        first = min(_SPECIAL_IDS, self._vocabulary // 2)
        tokens = range(first, self._vocabulary - first // 8)
        if not dialogues:
            dialogues = [random.Random(1).choices(tokens, k=40)]
        return tuple(tuple(prompt) for prompt in [*dialogues, *shakes(tokens, dialogues)])

    async def _alive(self) -> bool:
        try:
            async with asyncio.timeout(5.0):
                return await self._engine.healthy()
        except (EngineError, TimeoutError):
            return False

    async def _forget(self, name: str) -> None:
        """Unload; a name that is not there, or an engine that is gone, has forgotten it already."""
        try:
            await self._engine.unload(name)
        except EngineError:
            return

    def _not_finite(self, digest: str, *, contained: bool = False) -> Rejected | ProbeAway:
        """A NaN left in the cache can come back in another's answer, so only the first is surely the adapter's own;
        unless the engine `contained` each."""
        if self._tainted not in ("", digest):
            return ProbeAway(
                f"{digest} gave numbers that are not finite, but so did {self._tainted} before it on the same engine: "
                f"restart the quarantine engine {self._engine.url} to learn whose they are."
            )
        self._tainted = "" if contained else digest
        allowed, advice = "finite logprobs everywhere", "It would corrupt its neighbours' answers. Train it again."
        found = "a logprob that is not a finite number"
        return Rejected([Reason(code="not_finite", field="probe", found=found, allowed=allowed, advice=advice)])

    async def _meant(self, error: EngineError, digest: str) -> Rejected | ProbeAway:
        """Whose fault it is that the engine did not answer."""
        if isinstance(error, EnginePoisoned):
            return self._not_finite(digest, contained=error.contained)
        if error.code == "adapter_refused":
            return failed(f"the engine refused it: {error.message}")
        if not await self._alive():
            return failed(f"the quarantine engine died of it ({error.code})")
        return ProbeAway(f"The quarantine engine could not take it: {error}. Does it see the artifact folder?")


def _apart(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max((abs(a - b) for row, other in pairs for a, b in zip(row, other, strict=False)), default=0.0)
