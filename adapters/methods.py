"""Every method of PEFT 0.21 that is not LoRA: why an engine for LoRA cannot serve it, and the way that comes nearest.

The table is complete (a test compares it with PEFT's own list), so that nobody is told "unsupported" and no more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a method does to the base, and what to do instead."""

    does: str
    advice: str


_CONVERT = "Convert it with peft.save_as_lora(FOLDER, model, rank=16), or train LoRA on the same data."
_TRAIN = "Train LoRA on the same data (r=8, lora_alpha=16, target_modules='all-linear')."
_PROMPT = "Carry a fixed text as the version's system prompt (graftline.json), or train LoRA on the same data."


def _delta(what: str) -> Method:
    """Adds something to the weights that is not of low rank as it is stored, but that PEFT can factorise."""
    return Method(does=f"{what}, which the engine has no kernel for", advice=_CONVERT)


def _other(what: str) -> Method:
    """Changes the weights or the forward in a way that is no sum of a base and an update."""
    return Method(does=f"{what}, which the engine has no kernel for", advice=_TRAIN)


def _prompt(what: str) -> Method:
    """Learns tokens or keys and values instead of weights."""
    return Method(does=f"{what}; the engine takes tokens from requests only", advice=_PROMPT)


METHODS: dict[str, Method] = {
    "ADALORA": Method(
        does="keeps singular values between A and B and prunes ranks, which the engine would read wrongly",
        advice="Train LoRA with a rank_pattern of the ranks that AdaLoRA found, or init_lora_weights='eva'.",
    ),
    "ADAMSS": _other("updates subspaces of the weights"),
    "ADAPTION_PROMPT": _prompt("prepends learnt tokens in the upper layers (LLaMA-Adapter)"),
    "BEFT": _other("learns biases"),
    "BOFT": _other("multiplies the weights with butterfly rotations"),
    "C3A": _delta("adds a block-circular convolution"),
    "CARTRIDGE": _prompt("learns the key-value cache of a document"),
    "CPT": _prompt("learns the embeddings of a context"),
    "DEFT": _other("replaces a projection of the weights"),
    "DELORA": _delta("adds a normalised update with a learnt strength"),
    "FOURIERFT": _delta("adds an update stored as Fourier coefficients"),
    "FROD": _other("rotates the weights' singular vectors"),
    "GLORA": _other("scales and shifts weights and biases at once"),
    "GRALORA": _delta("adds a low-rank update for each block of a weight"),
    "HIRA": _other("multiplies the weights element by element"),
    "HRA": _other("reflects the weights"),
    "IA3": Method(
        does="scales activations by learnt vectors, which the engine has no kernel for",
        advice="Train LoRA with r=1 on the same modules, which holds as few numbers.",
    ),
    "LILY": _other("shares factors between layers"),
    "LN_TUNING": _other("changes the norms of the base, which all adapters share"),
    "LOHA": _delta("adds a Hadamard product of two low-rank updates"),
    "LOKR": _delta("adds a Kronecker product"),
    "MISS": _delta("adds an update shared between slices of a weight"),
    "MULTITASK_PROMPT_TUNING": _prompt("prepends learnt tokens for each task"),
    "OFT": _other("rotates the weights"),
    "OSF": _other("changes the base's own weights within a subspace"),
    "P_TUNING": _prompt("prepends tokens that a small network makes"),
    "PEANUT": _other("computes the update from the weights by a small network"),
    "POLY": _other("mixes several LoRAs by a learnt routing"),
    "PREFIX_TUNING": _prompt("prepends learnt keys and values in every layer"),
    "PROMPT_TUNING": _prompt("prepends learnt tokens"),
    "PSOFT": _delta("rotates the weights within their principal subspace"),
    "PVERA": _other("samples the scaling of random matrices"),
    "RANDLORA": _delta("adds a sum of scaled random matrices"),
    "ROAD": _other("rotates activations in pairs"),
    "SHADOW": _other("runs a second, small network beside the base"),
    "SHIRA": _other("changes single entries of many weights"),
    "SUPERTUNING": _other("changes single entries of the base's weights"),
    "TINYLORA": _delta("adds an update of a few numbers in random directions"),
    "TRAINABLE_TOKENS": Method(
        does="replaces rows of the embedding, which all adapters share",
        advice="Train LoRA on the linear modules, with the tokens that the base already has.",
    ),
    "UNILORA": _delta("adds an update projected from one vector"),
    "VBLORA": _delta("adds an update made from a bank of vectors"),
    "VERA": _delta("adds scaled random matrices that all layers share"),
    "WAVEFT": _delta("adds an update stored as wavelet coefficients"),
    "XLORA": Method(
        does="mixes several LoRAs by a learnt gate, token by token",
        advice="Register its adapters one by one and let an alias or a route choose.",
    ),
    # Names of earlier PEFT releases and of other libraries, which people still send.
    "BONE": _delta("adds a block update (now called MiSS)"),
    "BOTTLENECK": _other("puts small networks between the layers (adapter-transformers)"),
    "ADAPTER": _other("puts small networks between the layers (adapter-transformers)"),
    "DORA": Method(does="normalises the weights after the update", advice="Turn it into LoRA with graftline convert."),
}


def named(kind: object) -> tuple[str, str]:
    """Why `peft_type` is refused, and what to do, in words for a reason's `allowed` and `advice`."""
    method = METHODS.get(kind.upper().replace("-", "_")) if isinstance(kind, str) else None
    if method is None:
        return "LORA", "Save the adapter with PEFT as LoRA; other methods have no kernel in the engine."
    return f"LORA; this method {method.does}", method.advice
