"""How much an adapter may be: one table that archives, checks and artifacts all obey."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound that registration enforces. `rank_max` must be the engine's own `max_lora_rank`."""

    rank_max: int = 64
    files_max: int = 32
    #: All files of one adapter together, unpacked.
    bytes_max: int = 2 << 30
    #: One text file beside the weights. A tokenizer.json of a large vocabulary takes 35 MB.
    text_bytes_max: int = 64 << 20
    config_bytes_max: int = 1 << 20
    header_bytes_max: int = 16 << 20
    tensors_max: int = 100_000
    #: Largest entry of A and of scaling * B. Above 65504 a float16 engine would read infinity.
    value_max: float = 1e4
    #: How strongly scaling * B * A may amplify an input of unit RMS (‖·‖_F / sqrt(outputs)). The weights of a
    #: trained base are near 1 by this measure and adapters that work are below it; a hundred is never honest.
    #: Within it no Llama overflows bfloat16: norms begin every layer anew, a gate times an up stays below 1e11 and
    #: what a layer adds below 1e14, where bfloat16 ends at 3.4e38. float16 ends at 65504, and an adapter can reach that
    #: on some prompts only: there the tripwire is needed. `loadtests.corpus` holds such adapters.
    gain_max: float = 100.0
