"""What PEFT's config fields mean to serving: which are harmless, which must be off, and what to do about those."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adapters.errors import Findings
from adapters.methods import named

#: Fields that only say how training went, or how PEFT should treat the object in memory. They change no served value.
_INERT = frozenset(
    {
        "auto_mapping",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "runtime_config",
    }
)

#: Fields that must be absent, null, false or empty; and what to do when they are not.
_OFF: dict[str, str] = {
    "use_dora": "DoRA has no kernel in the engine. Turn it into LoRA with graftline convert, which reports the loss.",
    "lora_bias": "Biases of the LoRA layers are not served. Train with lora_bias=false.",
    "modules_to_save": "Whole modules cannot ride on a shared base. Train with modules_to_save=null.",
    "trainable_token_indices": "New token rows cannot ride on a shared base. Train without trainable_token_indices.",
    "alora_invocation_tokens": "Activated LoRA (aLoRA) is not served. Train plain LoRA.",
    "alora_invocation_string": "Activated LoRA (aLoRA) is not served. Train plain LoRA.",
    "layer_replication": "The served base has its own layers only. Train with layer_replication=null.",
    "fan_in_fan_out": "The served base stores weights as Linear layers. Train on such a base.",
    "use_qalora": "QALoRA is not served. Train plain LoRA.",
    "use_bdlora": "Block-diagonal LoRA is not served. Train plain LoRA.",
    "arrow_config": "Arrow routing is not served. Register its task adapters one by one.",
    "kasa_config": "KaSA changes the base weights and adds a diagonal. Train plain LoRA.",
    "velora_config": "VeLoRA saves tensors that the engine does not read. Train plain LoRA.",
    "monteclora_config": "MonteCLoRA saves tensors that the engine does not read. Train plain LoRA.",
    "megatron_config": "Megatron's sharded layers are not served. Save as plain PEFT.",
}

_OURS = frozenset(
    {
        "alpha_pattern",
        "base_model_name_or_path",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "target_parameters",
        "task_type",
        "use_rslora",
    }
)

_TASKS = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")

#: Inits that leave the base as it is. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA subtract their start from the base: the
#: saved A and B are then only right on a base that nobody serves.
_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
_FOLDED = re.compile(r"pissa(_niter_\d+)?|olora|corda|loftq|lora_ga")


def refuse(fields: Mapping[str, Any], findings: Findings) -> bool:
    """The refusal list: features that the engine ignores or that make it answer wrongly. Returns whether the file is
    about LoRA at all."""
    if (kind := fields.get("peft_type")) != "LORA":
        allowed, advice = named(kind)
        findings.add("unsupported_peft_type", "peft_type", kind, allowed, advice)
        return False  # every other field means something else there
    for name, value in fields.items():
        if name in _OFF:
            if not _is_off(value):
                findings.add("unsupported_feature", name, value, "off", _OFF[name])
        elif name not in _INERT and name not in _OURS and not _is_off(value):
            advice = "It may change what the adapter computes. Remove it if it does not; else train without it."
            findings.add("unknown_field", name, value, "fields of PEFT 0.21 that the engine serves", advice)
    if (bias := fields.get("bias", "none")) != "none":
        findings.add("unsupported_feature", "bias", bias, "none", "Biases are not served. Train with bias='none'.")
    if (task := fields.get("task_type")) not in _TASKS:
        advice = "Heads for other tasks are not part of the served base."
        findings.add("unsupported_feature", "task_type", task, "CAUSAL_LM or null", advice)
    init = fields.get("init_lora_weights", True)
    if isinstance(init, str) and _FOLDED.fullmatch(init.lower()):
        advice = (
            "This start changed the base that was trained on. Save with save_pretrained(…, "
            "path_initial_model_for_weight_conversion=…), which folds it into A and B."
        )
        findings.add(
            "unfolded_init", "init_lora_weights", init, "true, false, or an init that leaves the base as it is", advice
        )
    elif not isinstance(init, bool) and not (isinstance(init, str) and init.lower() in _INITS):
        allowed = f"true, false, {', '.join(sorted(_INITS))}"
        findings.add("bad_value", "init_lora_weights", init, allowed, "Use an init that leaves the base as it is.")
    return True


def _is_off(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
