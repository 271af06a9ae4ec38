"""Whole models: an adapter merged into a base that was freshly loaded, or trained weights as they are. Heavy.

PEFT merges into whatever it is given. Packed by bitsandbytes, and computed with once, weights lie in another order than
PEFT believes, and the merge destroys them without a word (`facts/training.md` §4). So the base is read from its files
into bfloat16 here, nothing is computed with it before, and anything that is packed otherwise is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from training.errors import BadCheckpoint, CannotExport

#: Packed weights that come back as the engine computes with them.
_UNPACKED: Final = "compressed-tensors"
_COPIED = (".json", ".jinja", ".model", ".txt")
#: What the weights' own writer makes, and what only the old weights had.
_NOT_COPIED = ("config.json", "generation_config.json", "pretrain.json", "card.json", "model.safetensors.index.json")


def merged(base: Path, adapter: Path, out: Path) -> None:
    """Write base + adapter to the new folder `out`, in bfloat16. Raises BadCheckpoint, CannotExport."""
    from training.probe.model import adapted

    model = fresh(base)
    try:
        whole = adapted(model, adapter).merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        raise CannotExport(f"{adapter} cannot be merged into {base.name}: {error}") from error
    write(whole, out, like=base)


def fresh(base: Path) -> Any:
    """The base in bfloat16, as its files have it; nothing was computed with it. Raises BadCheckpoint, CannotExport."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(base, **safe)
        packed = getattr(config, "quantization_config", None)
        if packed is not None:
            how = packed.get("quant_method") if isinstance(packed, dict) else getattr(packed, "quant_method", "")
            if how != _UNPACKED:
                raise CannotExport(
                    f"{base} is packed by {how}, and a merge into such weights can destroy them without a word. "
                    "Merge onto the bf16 checkpoint that it was made from."
                )
            packed["dequantize"] = True
        model = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.bfloat16, **safe)
    except (OSError, ValueError, ImportError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise BadCheckpoint(f"{base} cannot be loaded to merge into: {first}") from error
    return model.eval().requires_grad_(False)


def write(model: Any, out: Path, *, like: Path) -> None:
    """Write a whole model in bfloat16, with the tokenizer and template of the folder `like`. Raises CannotExport."""
    import torch

    if broken := [name for name, part in model.named_parameters() if not bool(torch.isfinite(part).all())]:
        raise CannotExport(f"{broken[0]} holds values that are not finite; nothing was written")
    try:
        out.mkdir(parents=True)
        model.save_pretrained(out, state_dict=_in_sixteen_bits(_plain(model)))
        for file in sorted(like.iterdir()):
            if file.is_file() and file.suffix in _COPIED and file.name not in _NOT_COPIED:
                shutil.copyfile(file, out / file.name)
        path = out / "config.json"
        fields = _unpacked(json.loads(path.read_text())) | {"dtype": "bfloat16", "use_cache": True}
        path.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")
    except (OSError, ValueError, RuntimeError) as error:
        raise CannotExport(f"{out} could not be written: {error}") from error


def _plain(model: Any) -> dict[str, Any]:
    """The tensors that a model of this kind has where nothing is packed: unpacking leaves scales of it behind."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = _unpacked(model.config.to_dict())
    with torch.device("meta"):
        config = AutoConfig.for_model(**fields)
        names = AutoModelForCausalLM.from_config(config, trust_remote_code=False).state_dict().keys()
    found = {name: tensor for name, tensor in model.state_dict().items() if name in names}
    if missing := sorted(names - found.keys()):
        raise CannotExport(f"the model has no {missing[0]}, which a {config.model_type} needs; nothing was written")
    return found


def _in_sixteen_bits(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same in bfloat16; the model stays as it is. What shares memory still does, so that it is written once."""
    import torch

    made: dict[tuple[int, tuple[int, ...]], Any] = {}
    found = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            found[name] = made.setdefault((tensor.data_ptr(), tuple(tensor.shape)), tensor.to(torch.bfloat16))
        else:
            found[name] = tensor
    return found


def _unpacked(fields: dict[str, Any]) -> dict[str, Any]:
    """The weights are not packed any more, whatever the base's config said."""
    return {name: value for name, value in fields.items() if name not in ("quantization_config", "_name_or_path")}
