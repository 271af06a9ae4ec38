"""Runs under the Python of llm-compressor's own environment, as a script: nothing of this project is imported here.

Reads a plan, one JSON object, from its standard input: model, out, method, symmetric, group, texts.
"""

import importlib
import json
import sys
from typing import Any

_TOKENS_MAX = 512


def main() -> None:
    """Round the model by what its layers see, and save it packed."""
    plan = json.load(sys.stdin)
    torch: Any = importlib.import_module("torch")
    datasets: Any = importlib.import_module("datasets")
    transformers: Any = importlib.import_module("transformers")
    compressor: Any = importlib.import_module("llmcompressor")
    tokenizer = transformers.AutoTokenizer.from_pretrained(plan["model"])
    model = transformers.AutoModelForCausalLM.from_pretrained(plan["model"], dtype=torch.bfloat16)
    if not torch.cuda.is_available():
        _keep_unpinned()
    rows = [
        tokenizer(text, truncation=True, max_length=_TOKENS_MAX, add_special_tokens=False) for text in plan["texts"]
    ]
    seen = datasets.Dataset.from_list([{"input_ids": row["input_ids"]} for row in rows])
    compressor.oneshot(
        model=model,
        dataset=seen,
        recipe=_modifier(plan),
        max_seq_length=_TOKENS_MAX,
        num_calibration_samples=len(rows),
    )
    model.save_pretrained(plan["out"], save_compressed=True)


def _modifier(plan: dict[str, Any]) -> Any:
    found: Any = importlib.import_module("compressed_tensors.quantization")
    weights = found.QuantizationArgs(
        num_bits=4, type="int", symmetric=plan["symmetric"], strategy="group", group_size=plan["group"]
    )
    groups = {"group_0": found.QuantizationScheme(targets=["Linear"], weights=weights)}
    if plan["method"] == "awq":
        kind = importlib.import_module("llmcompressor.modifiers.awq").AWQModifier
    else:
        kind = importlib.import_module("llmcompressor.modifiers.quantization").GPTQModifier
    return kind(config_groups=groups, ignore=["lm_head"])


def _keep_unpinned() -> None:
    """0.14 pins memory for a device even where there is none, and fails."""
    cache: Any = importlib.import_module("llmcompressor.pipelines.cache").IntermediatesCache
    if hasattr(cache, "_pin_intermediate"):
        held = cache.__dict__.get("_pin_intermediate")
        nothing: Any = lambda *_args, **_more: None  # noqa: E731
        cache._pin_intermediate = classmethod(nothing) if isinstance(held, classmethod) else nothing


if __name__ == "__main__":
    main()
