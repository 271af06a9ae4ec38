"""Round-to-nearest W4A16: a bf16 or fp32 checkpoint in, one the engines serve out.

The layout is compressed-tensors `pack-quantized`. Embeddings, output head, norms and everything
that is no projection of a decoder layer stay bf16. One tensor is in memory at a time; the output
folder appears under its name only when it is complete.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.base.digest import folder_digest
from training.errors import BadCheckpoint, CannotQuantize, OutputExists
from training.quantize_rtn import LayerError, packed, rtn
from training.quantize_shards import INDEX, Planned, Shard, shards_of, write_shard

Scheme = Literal["w4a16", "w4a16_asym"]
GROUP_FALLBACK = 32
_STEP = 32  # both sides of a layer come in multiples of this, or CPU kernels refuse it
_COPIED = (".json", ".jinja", ".model", ".txt")
_NOT_COPIED = (INDEX, "config.json", "pretrain.json", "card.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What quantizing did."""

    scheme: Scheme
    group: int
    bytes_before: int
    bytes_after: int
    layers: tuple[LayerError, ...]
    digest: str

    @property
    def layers_quantized(self) -> int:
        """How many layers are packed now."""
        return len(self.layers)

    @property
    def error_max(self) -> float:
        """The largest error of one weight, relative to the largest weight of its layer."""
        return max(layer.max for layer in self.layers)

    @property
    def error_mean(self) -> float:
        """The mean over layers of the relative error of a whole layer."""
        return sum(layer.mean for layer in self.layers) / len(self.layers)


def quantize(
    source: Path,
    out: Path,
    *,
    scheme: Scheme = "w4a16",
    group: int = 64,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Write `source` to the new folder `out` with packed weights.

    BadCheckpoint, CannotQuantize, OutputExists.
    """
    tell = progress or _silent
    if out.exists():
        raise OutputExists(f"{out} is already there. Artefacts are never overwritten: choose another folder.")
    config = _config(source)
    with ExitStack() as stack:
        shards = [Shard.open(path, stack) for path in shards_of(source)]
        group = _group(shards, group)
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            layers = _write(shards, building, scheme, group, tell)
            _write_config(building, config, scheme, group, _kept(shards))
            _copy_rest(source, building)
            digest = folder_digest(building)
            building.chmod(0o755)
            _publish(building, out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return Report(
        scheme=scheme,
        group=group,
        bytes_before=sum(shard.path.stat().st_size for shard in shards),
        bytes_after=sum((out / shard.path.name).stat().st_size for shard in shards),
        layers=tuple(layers),
        digest=digest,
    )


def is_quantizable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight of a projection inside a decoder layer."""
    inside = ".layers." in f".{name}" and "visual" not in name and "vision" not in name
    return inside and name.endswith("proj.weight") and len(shape) == 2


def _write(shards: list[Shard], out: Path, scheme: Scheme, group: int, tell: Callable[[str], None]) -> list[LayerError]:
    errors: list[LayerError] = []
    where: dict[str, str] = {}
    total = 0
    for shard in shards:
        planned = [p for name in shard.names for p in _planned(shard, name, scheme, group)]
        tensors = (t for name in shard.names for t in _tensors(shard, name, scheme, group, errors, tell))
        total += write_shard(out / shard.path.name, planned, tensors)
        where |= {p.name: shard.path.name for p in planned}
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (out / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return errors


def _planned(shard: Shard, name: str, scheme: Scheme, group: int) -> list[Planned]:
    shape = shard.shape(name)
    if not is_quantizable(name, shape):
        return [Planned(name, "BF16" if shard.is_float(name) else shard.dtype(name), shape)]
    rows, columns = shape
    layer = name.removesuffix(".weight")
    plan = [
        Planned(f"{layer}.weight_packed", "I32", (rows, columns // 8)),
        Planned(f"{layer}.weight_scale", "BF16", (rows, columns // group)),
        Planned(f"{layer}.weight_shape", "I64", (2,)),
    ]
    if scheme == "w4a16_asym":
        plan.append(Planned(f"{layer}.weight_zero_point", "I32", (rows // 8, columns // group)))
    return plan


def _tensors(
    shard: Shard, name: str, scheme: Scheme, group: int, errors: list[LayerError], tell: Callable[[str], None]
) -> Iterable[Any]:
    """The tensors `_planned` announced, in that order."""
    import torch

    weight = shard.tensor(name)
    if not is_quantizable(name, shard.shape(name)):
        yield weight.to(torch.bfloat16) if shard.is_float(name) else weight
        return
    layer = name.removesuffix(".weight")
    if not torch.isfinite(weight).all():
        raise CannotQuantize(layer, "it holds values that are not finite")
    result = rtn(weight, group=group, symmetric=scheme == "w4a16")
    errors.append(LayerError(name=layer, max=result.error_max, mean=result.error_mean))
    tell(f"{layer}: relative error {result.error_mean:.4f}")
    yield packed(result.levels, 1)
    yield result.scales
    yield torch.tensor(list(weight.shape))
    if scheme == "w4a16_asym":
        yield packed(result.zeros, 0)


def _group(shards: list[Shard], wanted: int) -> int:
    """One group size for all layers: the wanted one, else the fallback."""
    shapes = {n: s.shape(n) for s in shards for n in s.names if is_quantizable(n, s.shape(n))}
    if not shapes:
        raise BadCheckpoint("no decoder projections (`…layers.N.….*_proj.weight`) were found to quantize.")
    for name, (rows, columns) in shapes.items():
        if rows % _STEP or columns % _STEP:
            why = f"its size {rows} x {columns} is not in multiples of {_STEP}"
            raise CannotQuantize(name.removesuffix(".weight"), why)
    for group in (wanted, GROUP_FALLBACK):
        misfit = next((name for name, (_, columns) in shapes.items() if group < 8 or columns % group), None)
        if misfit is None:
            return group
    raise CannotQuantize(misfit.removesuffix(".weight") if misfit else "", f"groups of {wanted} do not divide it")


def _kept(shards: list[Shard]) -> list[str]:
    """Linear layers the engine must not expect packed."""
    matrices = {n for s in shards for n in s.names if n.endswith(".weight") and len(s.shape(n)) == 2}
    quantized = {n for s in shards for n in s.names if is_quantizable(n, s.shape(n))}
    others = {n.removesuffix(".weight") for n in matrices - quantized if "embed" not in n}
    return sorted({"lm_head", *others})


def _config(source: Path) -> dict[str, Any]:
    try:
        config = json.loads((source / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{source}/config.json can not be read: {error}") from error
    if not isinstance(config, dict) or "quantization_config" in config:
        raise BadCheckpoint(f"{source} is quantized already. Start from the bf16 or fp32 checkpoint.")
    return config


def _write_config(out: Path, config: dict[str, Any], scheme: Scheme, group: int, kept: list[str]) -> None:
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": scheme == "w4a16",
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
    }
    layers = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    config = {k: v for k, v in config.items() if k not in ("_name_or_path", "torch_dtype")}
    config["dtype"] = "bfloat16"
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": kept,
        "config_groups": {"group_0": layers},
    }
    (out / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def _copy_rest(source: Path, out: Path) -> None:
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _COPIED and file.name not in _NOT_COPIED:
            shutil.copyfile(file, out / file.name)


def _publish(building: Path, out: Path) -> None:
    try:
        os.rename(building, out)
    except OSError as error:
        raise OutputExists(f"{out} appeared while it was being built.") from error


def _silent(_line: str) -> None:
    """Nobody watches."""
