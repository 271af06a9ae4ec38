"""Modules that a base has and that vLLM 0.32 nevertheless does not adapt, or adapts wrongly. It says so at best in a
debug line; an adapter that touches one is refused here.

Read in vLLM's source; a test marked `vllm` compares the table of architectures with its registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adapters.checks.modules import TOWERS, BaseModules

# fmt: off
#: Architectures with adapters whose classes list no `embedding_modules`: neither the embedding nor the head.
_NO_EMBEDDINGS = frozenset({
    "AXK1ForCausalLM", "AfmoeForCausalLM", "BailingMoeForCausalLM", "BailingMoeV2ForCausalLM",
    "ChatGLMForConditionalGeneration", "ChatGLMModel", "DeepseekForCausalLM", "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM", "Ernie4_5_MoeForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma4ForCausalLM",
    "GemmaForCausalLM", "Glm4ForCausalLM", "Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM", "GptOssForCausalLM",
    "HYV3ForCausalLM", "InternLM2ForCausalLM", "LagunaForCausalLM", "LongcatFlashForCausalLM",
    "LongcatFlashNgramForCausalLM", "MiMoForCausalLM", "MiniMaxM2ForCausalLM", "Ministral3ForCausalLM",
    "MistralForCausalLM", "MistralLarge3ForCausalLM", "MolmoForCausalLM", "OPTForCausalLM", "OlmoHybridForCausalLM",
    "OlmoeForCausalLM", "PanguEmbeddedForCausalLM", "PanguProMoEV2ForCausalLM", "PanguUltraMoEForCausalLM",
    "Plamo3ForCausalLM", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3NextForCausalLM", "Rnj1ForCausalLM",
    "SarvamMLAForCausalLM", "SarvamMoEForCausalLM",
})
# fmt: on
#: The embedding, and not the head that it is tied to.
_NO_HEAD = frozenset({"CohereForCausalLM", "Cohere2ForCausalLM"})

_ENDS = re.compile(r"(?:^|\.)(?P<end>lm_head|embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)$")
_POSITIONS = re.compile(r"(?:^|\.)(?:wpe|embed_positions|position_embeddings?|pos_embed\w*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unserved:
    """Why a module's adapter would be ignored or answer wrongly, under the code of its reason."""

    code: str
    found: str
    advice: str


def why_unserved(name: str, base: BaseModules) -> Unserved | None:
    """None for the modules that the engine adapts as training did."""
    architectures = set(base.architecture.split(", "))
    end = found["end"] if (found := _ENDS.search(name)) else ""
    if any(tower in name for tower in TOWERS):
        return _module("a module of a tower", "The engine adapts the language model only. Exclude the tower.")
    if _POSITIONS.search(name):
        return _module("a position embedding", "The engine adapts linear modules. Take it out of target_modules.")
    if name.endswith("mixer.gate") and any(architecture.startswith("Nemotron") for architecture in architectures):
        return _module("a router that the engine leaves as it is", "Take `gate` out of target_modules.")
    if name.endswith("kv_b_proj") and base.latent:
        found_text = "a projection that the engine folds into attention, where an adapter is lost while decoding"
        return _module(found_text, "Take kv_b_proj out of target_modules.")
    if end and (_NO_EMBEDDINGS & architectures or (end == "lm_head" and _NO_HEAD & architectures)):
        return _module(
            f"an end of the model, which the engine does not adapt for {base.architecture}",
            f"Take {end} out of target_modules.",
        )
    if end and name in base.packed:
        return Unserved(
            code="quantization_pair",
            found=f"an adapter on {end}, which this base stores as {base.quantization}",
            advice=f"The engine adapts {end} in 16 bits only. Leave it out of target_modules, or quantize without it.",
        )
    return None


def _module(found: str, advice: str) -> Unserved:
    return Unserved(code="unserved_module", found=found, advice=advice)
