"""Which module each tensor of an adapter belongs to, in every layout that the engine reads: split, fused, experts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from adapters.checks.modules import BaseModules
from adapters.checks.served import why_unserved
from adapters.errors import Findings
from adapters.manifest import LoraConfig
from adapters.weights import FLOATS, Header, Tensor

#: {module: {"A": …, "B": …}}
Halves = dict[str, dict[str, Tensor]]

_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?:lora_(?P<linear>[AB])\.weight|lora_embedding_(?P<embedding>[AB]))"
)
#: PEFT saves the base's own embedding beside an adapter that targets it; the engine ignores these.
_COPY = re.compile(r"base_model\.model\.(?P<module>(?:.+\.)?(?:embed_tokens|lm_head))\.base_layer\.weight")

#: Tensors that another method leaves behind, told by their names.
_FOREIGN = (
    ("lora_magnitude_vector", "It belongs to DoRA. Turn it into LoRA with graftline convert."),
    ("lora_bias", "It belongs to lora_bias=true. Train without."),
    (".bias", "Biases are not served. Train with bias='none' and lora_bias=false."),
    ("modules_to_save", "Whole modules cannot ride on a shared base. Train with modules_to_save=null."),
    (".default.", "The adapter's name is part of the key. Save with PEFT's save_pretrained(), which removes it."),
    ("lora_ga_", "It belongs to LoRA-GA's start. Save with path_initial_model_for_weight_conversion=…."),
    ("hada_", "It belongs to LoHa. Convert it with peft.save_as_lora()."),
    ("lokr_", "It belongs to LoKr. Convert it with peft.save_as_lora()."),
    ("ia3_l", "It belongs to IA3. Train LoRA with r=1."),
    ("prompt_embeddings", "It belongs to prompt or prefix tuning. Train LoRA."),
    ("vera_lambda", "It belongs to VeRA. Convert it with peft.save_as_lora()."),
    ("lora_E", "It belongs to AdaLoRA, whose A and B are not those of LoRA. Train LoRA with a rank_pattern."),
    ("oft_", "It belongs to OFT or BOFT. Train LoRA."),
)
_KEY_FORM = "base_model.model.<module>.lora_A.weight and lora_B.weight"

#: What one module of some bases is in others. vLLM adapts what the checkpoint has.
_FUSED: dict[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("q_proj", "k_proj", "v_proj"),
    "wqkv": ("q_proj", "k_proj", "v_proj"),
    "W_pack": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_EXPERT = re.compile(r"(?P<block>.+\.experts)\.(?P<number>\d+)\.(?P<part>[^.]+)")


def by_module(header: Header, base: BaseModules, findings: Findings) -> Halves:
    """Sort the tensors into pairs; whatever is no half of a pair on a module that is served is a reason."""
    halves: Halves = {}
    for tensor in header.tensors.values():
        if tensor.dtype not in FLOATS:
            findings.add(
                "bad_dtype", tensor.name, tensor.dtype, ", ".join(FLOATS), "Save the adapter in 16 or 32 bits."
            )
        if _is_copy_of_base(tensor, base):
            continue
        if (found := _KEY.fullmatch(tensor.name)) is None:
            advice = next((advice for part, advice in _FOREIGN if part in tensor.name), "Save with save_pretrained().")
            findings.add("unknown_tensor", tensor.name, "a tensor that the engine does not read", _KEY_FORM, advice)
            continue
        name = found["module"]
        kind = "linear" if found["linear"] else "embedding"
        module = base.modules.get(name)
        if module is None or (module.kind == "embedding") != (kind == "embedding"):
            code, advice = _where(name, kind, base)
            findings.add(code, tensor.name, f"{kind} module {name}", "modules of the base", advice)
            continue
        if (why := why_unserved(name, base)) is not None:
            findings.add(why.code, tensor.name, why.found, "modules that the engine adapts", why.advice)
            continue
        halves.setdefault(name, {})[found["linear"] or found["embedding"]] = tensor
    return halves


def check_experts(halves: Mapping[str, Mapping[str, Tensor]], base: BaseModules, findings: Findings) -> None:
    """The engine packs all experts of a layer into one: each must be there, in one rank for each projection; without
    that it fails while loading, or takes the first one's scaling for all."""
    adapted: dict[str, dict[str, set[int]]] = {}
    for name, half in halves.items():
        if found := _EXPERT.fullmatch(name):
            a = half.get("A")
            adapted.setdefault(found["block"], {}).setdefault(found["part"], set()).add(a.shape[0] if a else 0)
    for block, parts in adapted.items():
        known = [name for name in base.modules if name.startswith(f"{block}.") and _EXPERT.fullmatch(name)]
        if missing := sorted(set(known) - halves.keys()):
            found_text = f"{len(known) - len(missing)} of {len(known)} modules; {missing[0]} is missing"
            advice = "The engine adapts all experts of a layer or none. Target every expert, or attention only."
            findings.add("incomplete_experts", block, found_text, "every expert's every projection", advice)
        for part, ranks in parts.items():
            if len(ranks) > 1:
                allowed = "one rank for a projection of all experts"
                advice = "The engine stacks the experts. Train them with one rank."
                findings.add("uneven_experts", f"{block}.*.{part}", f"ranks {sorted(ranks)}", allowed, advice)
    for name, module in base.modules.items():
        outer = name.removesuffix(".base_layer")
        if module.kind == "experts" and name != outer and (name in halves) != (outer in halves):
            found_text = "only one of gate_up_proj and down_proj"
            advice = "The engine adapts both or none. Name both in target_parameters."
            findings.add("incomplete_experts", outer, found_text, "both", advice)


def check_parameters(config: LoraConfig, base: BaseModules, findings: Findings) -> None:
    """Bare parameters are adapted only where they are a base's stacked experts."""
    parameters = {config.parameter(name) for name, module in base.modules.items() if module.kind == "experts"}
    for wanted in sorted(config.target_parameters):
        if not any(name == wanted or name.endswith(f".{wanted}") for name in parameters):
            allowed = "stacked experts of the base: " + (", ".join(sorted(parameters)[:2]) or "it has none")
            advice = "The engine adapts modules, and parameters only of experts that it keeps stacked. Target modules."
            findings.add("unsupported_feature", "target_parameters", wanted, allowed, advice)


def _is_copy_of_base(tensor: Tensor, base: BaseModules) -> bool:
    found = _COPY.fullmatch(tensor.name)
    module = base.modules.get(found["module"]) if found else None
    if module is None:
        return False
    rows_columns = (module.inputs, module.outputs) if module.kind == "embedding" else (module.outputs, module.inputs)
    return tensor.shape == rows_columns


def _where(name: str, kind: str, base: BaseModules) -> tuple[str, str]:
    """The code and the advice for a module that the base does not have: often it has it in another layout."""
    prefix, _, last = name.rpartition(".")
    for fused, parts in _FUSED.items():
        if last in parts and f"{prefix}.{fused}" in base.modules:
            return "fused_layout", f"This base keeps {', '.join(parts)} in one module, {fused}. Train on {fused}."
        if last == fused and f"{prefix}.{parts[0]}" in base.modules:
            return "fused_layout", f"This base keeps {', '.join(parts)} apart. Train on those; {fused} is not served."
    if ".experts" in name:
        stacked = any(module.kind == "experts" for module in base.modules.values())
        single = any(_EXPERT.fullmatch(known) for known in base.modules)
        if stacked:
            advice = "This base's experts are served as one tensor: target_parameters=['…experts.gate_up_proj', …]."
            return "expert_layout", advice
        if single:
            return "expert_layout", "This base's experts are served one by one: experts.<n>.<projection>. Save them so."
    last_named = [known for known in base.modules if known.rpartition(".")[2] == last]
    like = last_named[0] if last_named else f"no {kind} module called {last[:80]!r}"
    return (
        "unknown_module",
        f"The base has {like}. Was the adapter trained on another base, or saved under another prefix?",
    )
