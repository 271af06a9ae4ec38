"""Models to train: the served base unpacked, or packed as QLoRA has it; what of it is trained; how it leaves. Heavy."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from training.convert import convert
from training.errors import BadCheckpoint, OutputExists
from training.recipes.auto import Choices
from training.recipes.recipe import Recipe

#: Files of an adapter that may leave: PEFT also writes a card of its own, which says nothing.
_LEAVES = ("adapter_config.json", "adapter_model.safetensors")
#: A converted DoRA is cut to this rank, or to the server's if that is smaller.
_DORA_ROOM = 2


def load(
    folder: Path,
    *,
    precision: str = "float32",
    quantization: Literal["none", "nf4", "int8"] = "none",
    head: Literal["words", "score"] = "words",
) -> tuple[Any, Any]:
    """(model, tokenizer) of a base, as it is served: packed weights are unpacked to what the engine computes with.

    With `quantization` it is then packed again by bitsandbytes, for training only. Raises BadCheckpoint.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    kind = AutoModelForCausalLM if head == "words" else AutoModelForSequenceClassification
    try:
        config = AutoConfig.from_pretrained(folder, **safe)
        packed = getattr(config, "quantization_config", None)
        if packed is not None:
            packed["dequantize"] = True
        if head == "score":
            config.num_labels = 1
            if packed is not None:  # or the new head would be taken for packed weights too
                packed["ignore"] = [*packed.get("ignore", []), "score"]
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        if quantization == "none":
            dtype = torch.bfloat16 if precision == "bfloat16" and torch.cuda.is_available() else torch.float32
            model = kind.from_pretrained(folder, config=config, dtype=dtype, **safe)
        else:
            model = _packed_again(kind, folder, quantization, unpacked=packed is not None)
    except (OSError, ValueError, ImportError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise BadCheckpoint(f"{folder} cannot be loaded as a base to train on: {first}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.padding_side = "right"
    model.config.use_cache = False
    return model, tokenizer


def shape(recipe: Recipe, chosen: Choices, *, task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM") -> Any:
    """The adapter's configuration, for PEFT."""
    from peft import LoraConfig

    kind = recipe.adapter.kind
    targets = recipe.adapter.targets
    return LoraConfig(
        r=chosen.rank,
        lora_alpha=chosen.alpha,
        lora_dropout=recipe.adapter.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=task,
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        init_lora_weights="pissa" if kind == "pissa" else True,
        modules_to_save=["score"] if task == "SEQ_CLS" else None,
    )


def going_on(model: Any, folder: Path) -> Any:
    """The base with the adapter in `folder`, to be trained further."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, is_trainable=True)


def open_weights(model: Any, tuning: Literal["full", "half"]) -> list[str]:
    """Let only the matrices inside the layers be trained, since only they can leave as LoRA: all, or half a layer.

    Returns their names. Which half takes turns from layer to layer, so that every kind of matrix is trained somewhere.
    """
    import torch

    model.requires_grad_(False)
    inside = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and ".layers." in f".{name}"
    ]
    layers: dict[str, list[tuple[str, Any]]] = {}
    for name, part in inside:
        before, _, after = name.partition("layers.")
        layers.setdefault(f"{before}{after.split('.', 1)[0]}", []).append((name, part))
    opened = []
    for turn, parts in enumerate(layers.values()):
        for at, (name, part) in enumerate(parts):
            if tuning == "full" or at % 2 == turn % 2:
                part.weight.requires_grad_(True)
                opened.append(name)
    return opened


def optimizer_of(model: Any, recipe: Recipe, chosen: Choices) -> Any:
    """LoRA+: B learns faster than A. None where the trainer shall make its own optimizer."""
    if recipe.optim.lora_plus is None:
        return None
    import torch
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=chosen.learning_rate,
        loraplus_lr_ratio=recipe.optim.lora_plus,
        weight_decay=recipe.optim.weight_decay,
    )


def keep_start(model: Any, folder: Path) -> None:
    """The adapter before its first step: PiSSA changed the base, and leaving folds that back into A and B."""
    config = model.peft_config["default"]
    kept, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(folder)
    config.init_lora_weights = kept


def leave(
    model: Any,
    out: Path,
    *,
    base: Path,
    recipe: Recipe,
    start: Path | None = None,
    weights: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Write a trained adapter to the new folder `out` as a LoRA that can be served; what that cost, in numbers.

    `start` is what `keep_start` wrote, `weights` what was trained where the model holds a part of it only.
    Raises OutputExists, CannotConvert.
    """
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
        building = Path(name) / "whole"
        more: dict[str, Any] = {"state_dict": dict(weights)} if weights is not None else {}
        if start is not None:
            more["path_initial_model_for_weight_conversion"] = str(start)
        model.save_pretrained(building, **more)
        for file in building.iterdir():
            if file.name not in _LEAVES:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        path = building / "adapter_config.json"
        fields = json.loads(path.read_text())
        fields["base_model_name_or_path"] = base.name
        if isinstance(fields["target_modules"], list):
            fields["target_modules"].sort()  # PEFT keeps a set, whose order is another one in each process
        path.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")
        if recipe.adapter.kind != "dora":
            building.rename(out)
            return {}
        rank = min(recipe.adapter.rank_max, _DORA_ROOM * int(fields["r"]))
        done = convert(building, out, base=base, rank=rank)
    return {"rank": done.rank, "svd_loss": done.loss_total, "svd_logprob_mean": done.logprob_mean}


@contextmanager
def quiet() -> Iterator[None]:
    """PEFT and TRL warn of much that a recipe means to do; what a person must know is said as an event."""
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _packed_again(kind: Any, folder: Path, quantization: str, *, unpacked: bool) -> Any:
    """As QLoRA trains: weights of 16 bits, packed by bitsandbytes to NF4 with double quantization, or to 8 bits."""
    import torch
    from transformers import BitsAndBytesConfig

    from training.exporting.whole import fresh, write

    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    how = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
        if quantization == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    if not unpacked:
        return kind.from_pretrained(folder, quantization_config=how, dtype=compute, local_files_only=True)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / folder.name
        write(fresh(folder), plain, like=folder)
        more = {"num_labels": 1} if "Sequence" in kind.__name__ else {}
        return kind.from_pretrained(plain, quantization_config=how, dtype=compute, local_files_only=True, **more)
