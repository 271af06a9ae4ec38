"""Adapters whose adapter_model.safetensors lies, is damaged, fits no module, or holds numbers that do harm."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from loadtests.corpus.specimen import RANK, Bench, Broken, Raw, Tensors, blank, full, header, packed, raw, safetensors

Change = Callable[[Bench], Tensors]
_ROOT = "base_model.model.model."


def tensors() -> Iterator[Broken]:
    """Every specimen of this file."""
    yield from _numbers()
    yield from _pairs()
    yield from _modules()
    yield from _files()


def _numbers() -> Iterator[Broken]:
    for dtype in ("F32", "F16", "BF16"):
        yield _all(f"nan-{dtype.lower()}", "all-nan", "not_finite", math.nan, dtype)
    yield _all("infinite", "infinite", "not_finite", math.inf, "F32")
    yield _all("infinite-f16", "infinite", "not_finite", -math.inf, "F16")
    yield _all("huge", "finite-and-huge", "value_too_large", 1e30, "F32")
    yield _all("huge-bf16", "finite-and-huge", "value_too_large", 1e30, "BF16")
    yield _all("half-largest", "finite-and-huge", "value_too_large", 65504.0, "F16")
    yield _all("drowning", "update-too-large", "update_too_large", 30.0, "F32")
    yield _make("one-nan", "one-nan", "not_finite", _one_nan)
    yield _make("huge-and-tiny", "huge-times-tiny", "value_too_large", _huge_and_tiny)
    yield _make("zero-b", "no-effect", "no_effect", lambda bench: _halves(bench, b=0.0))
    yield _make("zero-a", "no-effect", "no_effect", lambda bench: _halves(bench, a=0.0))
    yield _make("minus-zero", "no-effect", "no_effect", lambda bench: _halves(bench, b=-0.0))
    yield _make("cancelling", "no-effect", "no_effect", _cancelling)
    for dtype, item in (("I8", 1), ("F64", 8), ("F8_E4M3", 1), ("BOOL", 1)):
        yield _make(f"type-{dtype.lower()}", "element-type", "bad_dtype", _typed(dtype, item))


def _pairs() -> Iterator[Broken]:
    yield _make("without-b", "half-a-pair", "unpaired", _without(".lora_B."))
    yield _make("without-a", "half-a-pair", "unpaired", _without(".lora_A."))
    yield _make("layer-lost", "layers-missing", "incomplete", _without("layers.1."))
    yield _make("module-lost", "layers-missing", "incomplete", _without("v_proj"))
    yield _make("nothing", "empty", "no_coverage", lambda bench: {})
    yield _make("uneven-ranks", "shape", "shape_mismatch", _first(lambda bench, a: full(0.01, RANK + 1, a[1][1])))
    yield _make("wide", "shape", "shape_mismatch", _first(lambda bench, a: full(0.01, RANK, a[1][1] + 8)))
    yield _make("flat", "shape", "shape_mismatch", _first(lambda bench, a: full(0.01, RANK * a[1][1])))
    yield _make("cube", "shape", "shape_mismatch", _first(lambda bench, a: full(0.01, *a[1], 1)))
    yield _make("transposed", "shape", "shape_mismatch", _transposed)
    yield _make("another-width", "another-base-size", "shape_mismatch", _another_width)


def _modules() -> Iterator[Broken]:
    yield _make("prefix-language-model", "prefix", "unknown_module", _renamed(_ROOT, _ROOT + "language_model."))
    yield _make("prefix-lost", "prefix", "unknown_tensor", _renamed("base_model.model.", ""))
    yield _make(
        "prefix-double", "prefix", "unknown_module", _renamed("base_model.model.", "base_model.model.base_model.model.")
    )
    yield _make("adapter-name", "adapter-name-in-key", "unknown_tensor", _renamed(".weight", ".default.weight"))
    yield _make("layer-beyond", "no-such-layer", "unknown_module", _renamed("layers.1.", "layers.4711."))
    yield _make("module-of-gpt2", "another-architecture", "unknown_module", _renamed("self_attn.q_proj", "attn.c_proj"))
    yield _make("fused-qkv", "fused-layout", "fused_layout", _renamed("q_proj", "qkv_proj"))
    yield _make("fused-gate-up", "fused-layout", "fused_layout", _renamed("self_attn.q_proj", "mlp.gate_up_proj"))
    yield _make(
        "expert-single", "expert-layout", "unknown_module", _renamed("self_attn.q_proj", "mlp.experts.0.up_proj")
    )
    yield _make("expert-stacked", "expert-layout", "unknown_module", _renamed("self_attn.q_proj", "mlp.experts"))
    yield _make("norm", "no-linear-module", "unknown_module", _renamed("self_attn.q_proj", "input_layernorm"))
    yield _make("tower", "no-linear-module", "unknown_module", _renamed("model.layers", "visual.blocks"))
    yield _make("untargeted", "untargeted", "untargeted_module", lambda bench: bench.lora("q_proj", "v_proj", "o_proj"))
    yield _make("magnitudes", "foreign-tensor", "unknown_tensor", _extra("lora_magnitude_vector"))
    yield _make("hadamard", "foreign-tensor", "unknown_tensor", _extra("hada_w1_a"))
    yield _make("bias-tensor", "foreign-tensor", "unknown_tensor", _extra("lora_B.bias"))
    yield _make("whole-head", "foreign-tensor", "unknown_tensor", _whole_head)
    yield _make("embedding-as-linear", "embedding-as-linear", "unknown_module", _embedding)


def _files() -> Iterator[Broken]:
    good = "bad_safetensors"
    yield _bytes("cut", "truncated", good, lambda content: content[: len(content) // 2])
    yield _bytes("cut-by-a-byte", "truncated", good, lambda content: content[:-1])
    yield _bytes("cut-in-header", "truncated", good, lambda content: content[:64])
    yield _bytes("empty-file", "truncated", good, lambda content: b"")
    yield _bytes("more-behind", "hidden-bytes", good, lambda content: content + b"\x80\x04.")
    yield _bytes("pickle", "pickle-as-safetensors", good, lambda content: b"\x80\x04\x95" + bytes(400))
    yield _bytes("header-endless", "header", good, lambda content: b"\xff" * 8 + content[8:])
    yield _bytes("header-no-json", "header", good, lambda content: packed(b"x" * 64, content))
    yield _bytes("header-list", "header", good, lambda content: packed(b"[1]", b""))
    yield _head("overlap", "offsets", good, _overlapping)
    yield _head("hole", "offsets", good, _hole)
    yield _head("backwards", "offsets", good, _backwards)
    yield _bytes("named-twice", "duplicate-tensor", good, _twice)


def _make(name: str, kind: str, code: str, change: Change) -> Broken:
    return Broken(name=name, kind=kind, codes=(code,), make=lambda bench, at: bench.write(at, tensors=change(bench)))


def _all(name: str, kind: str, code: str, value: float, dtype: str) -> Broken:
    def change(bench: Bench) -> Tensors:
        return {key: full(value, *one[1], dtype=dtype) for key, one in bench.lora().items()}

    return _make(name, kind, code, change)


def _bytes(name: str, kind: str, code: str, change: Callable[[bytes], bytes]) -> Broken:
    def make(bench: Bench, at: Path) -> None:
        bench.write(at, weights=change(safetensors(bench.lora())))

    return Broken(name=name, kind=kind, codes=(code,), make=make)


def _head(name: str, kind: str, code: str, change: Callable[[dict[str, list[int]]], None]) -> Broken:
    """The header's offsets, changed; the data as it was."""

    def make(bench: Bench, at: Path) -> None:
        content = bench.lora()
        document = header(content)
        change({key: entry["data_offsets"] for key, entry in document.items() if key != "__metadata__"})
        bench.write(at, weights=packed(json.dumps(document).encode(), b"".join(one[2] for one in content.values())))

    return Broken(name=name, kind=kind, codes=(code,), make=make)


def _overlapping(offsets: dict[str, list[int]]) -> None:
    first, second = list(offsets)[:2]
    offsets[second][:] = [0, offsets[second][1] - offsets[second][0]]
    assert first != second


def _hole(offsets: dict[str, list[int]]) -> None:
    for pair in list(offsets.values())[1:]:
        pair[:] = [pair[0] + 64, pair[1] + 64]


def _backwards(offsets: dict[str, list[int]]) -> None:
    pair = next(iter(offsets.values()))
    pair.reverse()


def _twice(content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    head = content[8 : 8 + length].decode()
    name = next(key for key in json.loads(head) if key != "__metadata__")
    entry = json.dumps(json.loads(head)[name])
    return packed((head[:-1] + f', "{name}": {entry}}}').encode(), content[8 + length :])


def _one_nan(bench: Bench) -> Tensors:
    content = bench.lora()
    name = next(reversed(content))
    values = np.frombuffer(content[name][2], "<f4").copy()
    values[values.size // 3] = math.nan
    return {**content, name: ("F32", content[name][1], values.tobytes())}


def _huge_and_tiny(bench: Bench) -> Tensors:
    """Their product is harmless; one of them alone is not, once it is in 16 bits."""
    return _halves(bench, a=1e30, b=1e-30)


def _halves(bench: Bench, *, a: float | None = None, b: float | None = None) -> Tensors:
    given = {".lora_A.": a, ".lora_B.": b}
    content = bench.lora()
    for name, one in content.items():
        value = next(given[half] for half in given if half in name)
        content[name] = one if value is None else full(value, *one[1])
    return content


def _cancelling(bench: Bench) -> Tensors:
    """Two ranks that take each other back: B·A is zero though neither is."""
    content = bench.lora()
    for name, (_, shape, data) in content.items():
        values = np.frombuffer(data, "<f4").reshape(shape).copy()
        if ".lora_A." in name:
            values[RANK // 2 :] = values[: RANK // 2]
        else:
            values[:, RANK // 2 :] = -values[:, : RANK // 2]
        content[name] = raw(values)
    return content


def _typed(dtype: str, item: int) -> Change:
    return lambda bench: {name: blank(dtype, item, *one[1]) for name, one in bench.lora().items()}


def _without(part: str) -> Change:
    return lambda bench: {name: one for name, one in bench.lora().items() if part not in name}


def _first(change: Callable[[Bench, Raw], Raw]) -> Change:
    """The first A, changed."""

    def changed(bench: Bench) -> Tensors:
        content = bench.lora()
        name = next(name for name in content if ".lora_A." in name)
        return {**content, name: change(bench, content[name])}

    return changed


def _transposed(bench: Bench) -> Tensors:
    return {name: (one[0], one[1][::-1], one[2]) for name, one in bench.lora().items()}


def _another_width(bench: Bench) -> Tensors:
    inputs = 2 * bench.shape.hidden
    swap: Mapping[str, tuple[int, ...]] = {".lora_A.": (RANK, inputs), ".lora_B.": (inputs, RANK)}
    return {name: full(0.01, *next(swap[half] for half in swap if half in name)) for name in bench.lora()}


def _renamed(old: str, new: str) -> Change:
    """Every key that holds `old`, under another name; the rest as it was."""
    return lambda bench: {name.replace(old, new, 1): one for name, one in bench.lora().items()}


def _extra(suffix: str) -> Change:
    def change(bench: Bench) -> Tensors:
        return {**bench.lora(), f"{_ROOT}layers.0.self_attn.q_proj.{suffix}": full(1.0, bench.shape.queries)}

    return change


def _whole_head(bench: Bench) -> Tensors:
    key = "base_model.model.lm_head.modules_to_save.weight"
    return {**bench.lora(), key: full(0.01, bench.shape.vocab, bench.shape.hidden)}


def _embedding(bench: Bench) -> Tensors:
    key = f"{_ROOT}embed_tokens.lora_A.weight"
    return {**bench.lora(), key: full(0.01, RANK, bench.shape.vocab)}
