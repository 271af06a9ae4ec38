"""The warm base: loaded once, asked for its logprobs once, then copied by every fork. torch is imported here only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import BadCheckpoint
from training.probe import prompts

WEIGHTS = "adapter_model.safetensors"
#: Above this many bytes of weights in float32, bfloat16 is used: half the memory, and as near to an engine's numbers.
FLOAT32_BYTES_MAX = 6 << 30
#: Where the layers hand on larger numbers than this, a 16-bit engine overflows sooner or later, though 32 bits do not:
#: what comes out counts as no number. Trained bases reach a few ten thousand.
LARGEST_MAX = 1e6
#: How much longer than the shortest the longest of a group may be.
_STRETCH_MAX = 2.2
Rows = list[list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """A base in memory, the prompts made for it, and what it says to them."""

    model: Any
    prompts: list[list[int]]
    base: Rows


def load(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of a base on the CPU, in float32 unless it is large. Packed weights are unpacked, so that PEFT
    sees plain Linear layers.

    Raises BadCheckpoint.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **safe)
        packed = getattr(config, "quantization_config", None)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        small = 4 * sum(part.numel() for part in empty.parameters()) <= FLOAT32_BYTES_MAX
        if packed is not None:
            packed["dequantize"] = True
        dtype = torch.float32 if small else torch.bfloat16
        model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, **safe)
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
    except (OSError, ValueError, ImportError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise BadCheckpoint(f"{folder} cannot be loaded as a base for probes: {first}") from error
    return model.eval().requires_grad_(False), tokenizer


def warm(folder: Path) -> Warm:
    """Load the base, make the prompts, ask the base. Raises BadCheckpoint."""
    model, tokenizer = load(folder)
    dialogues = [answered(model, opening) for opening in prompts.openings(tokenizer)]
    tokens = prompts.usable(tokenizer, model.config.get_text_config().vocab_size)
    asked = [*dialogues, *prompts.shakes(tokens, dialogues)]
    base = rows(model, asked)
    if not all(math.isfinite(value) for row in base for value in row):
        raise BadCheckpoint(f"{folder} answers with numbers that are not finite, without any adapter")
    return Warm(model=model, prompts=asked, base=base)


def answered(model: Any, opening: Sequence[int]) -> list[int]:
    """The opening and the base's greedy answer, without the token that ends it."""
    import torch

    ends = model.generation_config.eos_token_id
    stop = set(ends if isinstance(ends, list) else [ends])
    ids, cache = list(opening), None
    step = ids
    with torch.no_grad():
        for _ in range(prompts.ANSWER_TOKENS):
            out = model(input_ids=torch.tensor([step]), past_key_values=cache, use_cache=True)
            cache, token = out.past_key_values, int(out.logits[0, -1].argmax())
            if token in stop:
                break
            ids.append(token)
            step = [token]
    return ids


def rows(model: Any, asked: Sequence[Sequence[int]]) -> Rows:
    """The natural-log probability of each prompt's tokens from the second on."""
    found: Rows = [[] for _ in asked]
    for group in _groups([len(ids) for ids in asked]):
        for at, row in zip(group, _together(model, [asked[at] for at in group]), strict=True):
            found[at] = row
    return found


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Prompts of like length go through the model together: most of a small model's time is per call."""
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[at] <= _STRETCH_MAX * lengths[groups[-1][0]]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


def _together(model: Any, asked: Sequence[Sequence[int]]) -> Rows:
    import torch

    width = max(map(len, asked))
    # What stands to the right of a token cannot reach it, so the filling needs no mask.
    ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in asked], device=model.device)
    with torch.no_grad():
        out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        logits = out.logits[:, :-1].float()
        said = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)
        largest = torch.stack([state[:, :-1].abs().amax(-1) for state in out.hidden_states]).amax(0)
        said = said.masked_fill(largest.float() > LARGEST_MAX, float("nan"))
    return [row[: len(prompt) - 1] for row, prompt in zip(said.tolist(), asked, strict=True)]


def adapted(model: Any, folder: Path) -> Any:
    """The base with the adapter in `folder` on it, changed in place: call it in a fork, or `unload()` it.

    Raises FileNotFoundError, ValueError for a damaged file, and what PEFT raises.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"no {WEIGHTS}; nothing else is read")
    try:
        return PeftModel.from_pretrained(model, folder, low_cpu_mem_usage=True).eval()
    except SafetensorError as error:
        raise ValueError(f"{WEIGHTS} is damaged: {error}") from error
