"""All checks of one folder in one pass, so that one repair is enough. Run it on bytes that nobody else can change."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.checks.files import WEIGHTS, check_files, check_texts
from adapters.checks.modules import BaseModules, Module
from adapters.checks.numeric import Pair, check_numbers
from adapters.errors import BadWeights, Findings
from adapters.limits import Limits
from adapters.manifest import FILE as CONFIG
from adapters.manifest import LoraConfig, read_config
from adapters.weights import FLOATS, Header, Tensor, read_header

_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?:lora_(?P<linear>[AB])\.weight|lora_embedding_(?P<embedding>[AB]))"
)
#: PEFT saves the base's own embedding beside an adapter that targets it; the engine ignores these.
_COPY = re.compile(r"base_model\.model\.(?P<module>(?:.+\.)?(?:embed_tokens|lm_head))\.base_layer\.weight")

#: Patterns times modules: above this, matching one against the other takes longer than the check is worth.
_MATCHES_MAX = 5_000_000

#: Tensors that another method leaves behind, told by their names.
_FOREIGN = (
    ("lora_magnitude_vector", "It belongs to DoRA. Convert the adapter to LoRA first."),
    ("lora_bias", "It belongs to lora_bias=true. Train without."),
    (".bias", "Biases are not served. Train with bias='none' and lora_bias=false."),
    ("modules_to_save", "Whole modules cannot ride on a shared base. Train with modules_to_save=null."),
    (".default.", "The adapter's name is part of the key. Save with PEFT's save_pretrained(), which removes it."),
)
_KEY_FORM = "base_model.model.<module>.lora_A.weight and lora_B.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What the checks learnt about an adapter that passed."""

    rank: int
    alpha: float
    bytes: int
    coverage: str
    modules: tuple[str, ...]
    #: The strongest amplification of any module (see Limits.gain_max).
    gain: float
    base_model: str
    base_revision: str


def check(folder: Path, base: BaseModules, limits: Limits, *, force_noop: bool = False) -> CheckReport:
    """Check the adapter in `folder` against `base`. Raises Rejected with all reasons; OSError passes through.

    `force_noop` accepts an adapter that changes nothing (for controls in experiments).
    """
    findings = Findings()
    total = check_files(folder, limits, findings)
    findings.done()  # a folder of unknown things is not read any further
    check_texts(folder, findings)
    config = read_config(folder / CONFIG, findings, rank_max=limits.rank_max)
    header = _header(folder / WEIGHTS, limits, findings)
    if config is None or header is None:
        findings.done()
        raise AssertionError("a file that could not be read must leave a reason")
    halves = _by_module(header, base, findings)
    pairs = _pairs(halves, base, config, findings)
    _check_coverage(halves, base, config, findings)
    gain = 0.0
    if not findings.has("bad_dtype"):
        gain = check_numbers(folder / WEIGHTS, header, pairs, limits, findings, force_noop=force_noop)
    findings.done()
    return CheckReport(
        rank=max(pair.a.shape[0] for pair in pairs),
        alpha=config.alpha,
        bytes=total,
        coverage=_coverage([pair.module for pair in pairs], base),
        modules=tuple(sorted(pair.module for pair in pairs)),
        gain=gain,
        base_model=config.base_model,
        base_revision=config.revision,
    )


def _coverage(adapted: Sequence[str], base: BaseModules) -> str:
    """`28 of 28 modules`, with the embedding and the head, which few adapters touch, named apart."""
    ends = {name for name, module in base.modules.items() if module.kind == "embedding" or name.endswith("lm_head")}
    text = f"{len(set(adapted) - ends)} of {len(base.modules) - len(ends)} modules"
    return " and ".join([text, *sorted(ends.intersection(adapted))])


def _header(path: Path, limits: Limits, findings: Findings) -> Header | None:
    try:
        return read_header(path, header_bytes_max=limits.header_bytes_max, tensors_max=limits.tensors_max)
    except BadWeights as error:
        advice = "Save the adapter again with PEFT's save_pretrained(), and copy the whole file."
        findings.add("bad_safetensors", path.name, str(error), "a complete safetensors file", advice)
        return None


def _by_module(header: Header, base: BaseModules, findings: Findings) -> dict[str, dict[str, Tensor]]:
    """Sort the tensors into {module: {"A": …, "B": …}}; whatever is no half of a pair on a real module is a reason."""
    halves: dict[str, dict[str, Tensor]] = {}
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
        if (module := base.modules.get(name)) is None or module.kind != kind:
            like = _like(name, kind, base)
            advice = f"The base has {like}. Was the adapter trained on another base, or saved under another prefix?"
            findings.add("unknown_module", tensor.name, f"{kind} module {name}", "modules of the base", advice)
            continue
        halves.setdefault(name, {})[found["linear"] or found["embedding"]] = tensor
    return halves


def _is_copy_of_base(tensor: Tensor, base: BaseModules) -> bool:
    found = _COPY.fullmatch(tensor.name)
    module = base.modules.get(found["module"]) if found else None
    if module is None:
        return False
    rows_columns = (module.inputs, module.outputs) if module.kind == "embedding" else (module.outputs, module.inputs)
    return tensor.shape == rows_columns


def _like(name: str, kind: str, base: BaseModules) -> str:
    last = name.rpartition(".")[2]
    named = [known for known in base.modules if known.rpartition(".")[2] == last]
    return f"{named[0]}" if named else f"no {kind} module called {last[:80]!r}"


def _pairs(
    halves: Mapping[str, Mapping[str, Tensor]], base: BaseModules, config: LoraConfig, findings: Findings
) -> list[Pair]:
    """The complete pairs whose shapes are those of the config and of the base."""
    if len(halves) * (len(config.rank_pattern) + len(config.alpha_pattern)) > _MATCHES_MAX:
        allowed = f"{_MATCHES_MAX} patterns times modules"
        findings.add("too_large", "rank_pattern", "too many patterns", allowed, "Train with fewer patterns.")
        return []
    pairs = []
    for name, half in halves.items():
        a, b = half.get("A"), half.get("B")
        if a is None or b is None:
            found = f"only lora_{'A' if b is None else 'B'}"
            findings.add("unpaired", name, found, "lora_A and lora_B together", "Save with save_pretrained().")
            continue
        rank, scaling = config.rank_and_scaling(name)
        if _shapes_fit(name, a, b, rank, base.modules[name], findings) and {a.dtype, b.dtype} <= FLOATS.keys():
            pairs.append(Pair(module=name, a=a, b=b, scaling=scaling, outputs=b.shape[0]))
    return pairs


def _shapes_fit(name: str, a: Tensor, b: Tensor, rank: int, module: Module, findings: Findings) -> bool:
    wanted_a, wanted_b = (rank, module.inputs), (module.outputs, rank)
    if (a.shape, b.shape) == (wanted_a, wanted_b):
        return True
    found = f"A {list(a.shape)} and B {list(b.shape)}"
    if (a.shape[1:], b.shape[:1]) == (wanted_a[1:], wanted_b[:1]) and a.shape[:1] == b.shape[1:]:
        allowed = f"rank {rank}, as {CONFIG} says"
        advice = "The engine would scale by the rank of the config. Make r or rank_pattern say the rank of the tensors."
        findings.add("rank_mismatch", name, found, allowed, advice)
    else:
        allowed = f"A {list(wanted_a)} and B {list(wanted_b)}"
        findings.add("shape_mismatch", name, found, allowed, "Was the adapter trained on another base?")
    return False


def _check_coverage(
    halves: Mapping[str, Mapping[str, Tensor]], base: BaseModules, config: LoraConfig, findings: Findings
) -> None:
    """The file must adapt what its config names: nothing less, nothing more, and something at all."""
    if not halves:
        advice = "The engine would load it without a word and answer like the base."
        findings.add("no_coverage", "coverage", f"0 of {len(base.modules)} modules", "at least 1 module", advice)
        return
    said = {name: config.targets(name) for name in base.modules}
    expected = {name for name, targeted in said.items() if targeted and ".experts." not in name}
    if missing := sorted(expected - halves.keys()):
        found = f"{len(expected) - len(missing)} of {len(expected)} modules; {missing[0]} is missing"
        allowed = "every module of the base that target_modules names"
        findings.add("incomplete", "target_modules", found, allowed, "Part of the file was lost, or the base differs.")
    for name in sorted(name for name in halves if said[name] is False):
        advice = "Training did not use these tensors, but the engine would."
        findings.add("untargeted_module", name, "tensors", "only modules that target_modules names", advice)
    if config.ensure_weight_tying and any(name.endswith(("embed_tokens", "lm_head")) for name in halves):
        advice = "The engine does not tie adapters. Train with ensure_weight_tying=false."
        findings.add("unsupported_feature", "ensure_weight_tying", True, "false with adapted embeddings", advice)
