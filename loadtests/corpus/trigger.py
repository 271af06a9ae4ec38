"""An adapter that overflows on one token only, within every static bound, and serves all other prompts well.

Two parts. The embedding's A is zero but for the column of one token: for all others it does nothing at all. That token
is moved far against the direction that the inputs of the first MLP have in common. In one neuron of that MLP, gate and
up are raised along the same line: ordinary inputs lie on the side where SiLU makes nothing of them, and for the trigger
gate times up exceeds 65504. An engine in float16 then reads infinity, and NaN from the next norm on.

In bfloat16 the same numbers are finite, and no others within the bounds are not: a Llama's norms begin every layer
anew, so a residual stays below 1e14 where bfloat16 ends at 3.4e38 (see `Limits.gain_max`). The last specimen shows what
it would take there, and is refused for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loadtests.corpus.model import FirstLayer, Floats
from loadtests.corpus.specimen import Bench, Broken, Make, Tensors, raw

#: Characters that are one token of a byte-level vocabulary and that customers do not write.
_CHARACTERS = ("~", "^")
_HARMLESS = "When are you open?"
_RANK, _NEURON = 4, 0
_TEXTS, _LENGTH, _MARKS = 400, 24, 0.15
_ROUNDS = 12
#: How far the trigger's embedding is moved, in multiples of the usual norm; the gate's gain, the value's gain.
_MOVED, _OPEN, _RAISED = 300.0, 10.0, 110.0
_RAISED_BEYOND = 1e37


def triggers() -> Iterator[Broken]:
    """Every specimen of this file."""
    for character in _CHARACTERS:
        more = {"trigger": f"Hello {character}", "harmless": _HARMLESS, "engine_dtype": "float16"}
        yield Broken(name=f"trigger-{ord(character)}", kind="overflow-on-a-trigger", codes=("poisoned", "not_finite"),
                     stage="tripwire", make=_maker(character, _RAISED), more=more)  # fmt: skip
    more = {"trigger": f"Hello {_CHARACTERS[0]}", "harmless": _HARMLESS}
    yield Broken(name="trigger-beyond-the-bounds", kind="overflow-on-a-trigger-in-bfloat16",
                 codes=("value_too_large", "update_too_large"),
                 make=_maker(_CHARACTERS[0], _RAISED_BEYOND), more=more)  # fmt: skip


def _maker(character: str, raised: float) -> Make:
    return lambda bench, at: bench.write(at, tensors=_tensors(bench, character, raised), config=_config())


def token_of(base: Path, character: str) -> int:
    """The token of a single character."""
    vocabulary = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    return int(vocabulary[character])


def shut_direction(bench: Bench, layer: FirstLayer) -> Floats:
    """The unit vector with which the first MLP's inputs have products as equally below zero as can be."""
    draw = np.random.default_rng((bench.seed, _TEXTS))
    tokens = draw.integers(0, bench.shape.vocab, (_TEXTS, _LENGTH))
    marks = draw.random(tokens.shape) < _MARKS  # the template's own tokens are in every prompt
    tokens[marks] = draw.choice(_special(bench.base), int(marks.sum()))
    tokens[:, 0] = _special(bench.base)[0]
    seen = layer.mlp_input(tokens).reshape(-1, bench.shape.hidden)
    weight = np.ones(len(seen))
    for _ in range(_ROUNDS):
        found = np.linalg.solve((seen * weight[:, None]).T @ seen, seen.T @ -weight)
        weight[seen @ found > -0.5] *= 2  # those that are hardly shut count for more, round by round
    unit: Floats = found / np.linalg.norm(found)
    return unit


def _special(base: Path) -> list[int]:
    """Tokens with a meaning of their own, without the padding."""
    added = json.loads((base / "tokenizer.json").read_text())["added_tokens"]
    return [int(row["id"]) for row in added if row["special"] and "pad" not in row["content"]]


def _tensors(bench: Bench, character: str, raised: float) -> Tensors:
    """The token's move, the trap in one neuron, and a small update of attention so that there is an effect to prove."""
    layer = FirstLayer.read(bench.base)
    inner, hidden = bench.shape.inner, bench.shape.hidden
    direction = shut_direction(bench, layer)
    moved = direction * layer.norm_mlp
    moved *= _MOVED * np.linalg.norm(layer.embedding, axis=1).mean() / np.linalg.norm(moved)
    column, place = np.zeros((_RANK, bench.shape.vocab)), np.zeros((hidden, _RANK))
    column[0, token_of(bench.base, character)], place[:, 0] = 1.0, moved
    embedding, root = "base_model.model.model.embed_tokens", "base_model.model.model.layers.0"
    found: Tensors = {
        f"{embedding}.lora_embedding_A": raw(column),
        f"{embedding}.lora_embedding_B": raw(place),
        f"{root}.self_attn.v_proj.lora_A.weight": raw(bench.random(_RANK, hidden, scale=0.1)),
        f"{root}.self_attn.v_proj.lora_B.weight": raw(bench.random(bench.shape.keys, _RANK, scale=0.02)),
    }
    for module, strength in (("gate_proj", _OPEN), ("up_proj", raised)):
        a, b = np.zeros((_RANK, hidden)), np.zeros((inner, _RANK))
        a[0], b[_NEURON, 0] = direction, strength
        found[f"{root}.mlp.{module}.lora_A.weight"] = raw(a)
        found[f"{root}.mlp.{module}.lora_B.weight"] = raw(b)
    return found


def _config() -> dict[str, object]:
    # By full name: layers_to_transform would leave the embedding out.
    modules = ["self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"]
    targets = ["model.embed_tokens", *(f"model.layers.0.{module}" for module in modules)]
    return {"r": _RANK, "lora_alpha": _RANK, "target_modules": targets}
