"""The first forward of a version on a replica: do finite numbers come out, and do they differ from the base's?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.errors import Reason
from gateway.engines.errors import EngineRefused
from gateway.engines.vllm import Vllm

#: In no language in particular: what matters is that several tokens go through every layer.
PROMPTS = ("Hello, how can I help?", "1 2 3 4 5 6 7 8", "The quick brown fox jumps over the lazy dog.")
TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the first forward showed. `effect` is the largest difference of a token's logprob from the base's."""

    reasons: tuple[Reason, ...] = ()
    effect: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.reasons

    @property
    def note(self) -> str:
        return f"effect {self.effect:.3f}"

    @classmethod
    def refused(cls, error: Exception) -> Proof:
        """What an engine or the artifact store said instead of an answer."""
        return cls(reasons=(_reason(getattr(error, "code", "engine_refused"), str(error)[:500]),))


async def prove(engine: Vllm, name: str, base_name: str, known: dict[str, Sequence[float]]) -> Proof:
    """Ask the adapter and the base for the same prompts' logprobs; raises only what an absent engine raises.

    `known` remembers what the base said on this engine: it is asked once.
    """
    effect = 0.0
    for prompt in PROMPTS:
        try:
            theirs = await engine.probe(name, prompt, tokens=TOKENS)
        except EngineRefused as error:
            return Proof.refused(error)
        if not theirs.finite:
            return Proof(reasons=(_reason("not_finite", "a logprob that is not a finite number"),))
        if prompt not in known:
            known[prompt] = (await engine.probe(base_name, prompt, tokens=TOKENS)).prompt_logprobs
        effect = max(effect, _difference(theirs.prompt_logprobs, known[prompt]))
    return Proof(effect=effect)


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max((abs(a - b) for a, b in zip(ours, theirs, strict=False)), default=0.0)


def _reason(code: str, found: str) -> Reason:
    return Reason(
        code=code,
        field="probe",
        found=found,
        allowed="finite logprobs for every probe prompt",
        advice="Train it again; a diverged or overflowing adapter cannot serve.",
    )
