"""All checks of one folder in one pass, so that one repair is enough. Run it on bytes that nobody else can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.carried import Carried, read_carried
from adapters.checks.files import WEIGHTS, check_files, check_texts
from adapters.checks.identity import OTHER_TEMPLATE, Stated, check_identity, read_lineage
from adapters.checks.layouts import by_module, check_experts, check_parameters
from adapters.checks.modules import BaseModules, Module
from adapters.checks.numeric import Pair, check_numbers
from adapters.checks.template import adds_tokens, read_template_digest
from adapters.errors import BadWeights, Findings
from adapters.limits import Limits
from adapters.manifest import FILE as CONFIG
from adapters.manifest import LoraConfig, read_config
from adapters.weights import FLOATS, Header, Tensor, read_header

#: Patterns times modules: above this, matching one against the other takes longer than the check is worth.
_MATCHES_MAX = 5_000_000
_GAIN_FAINT = 1e-4


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
    #: What is worth knowing and no reason to refuse: see identity.py, and `own_tokens`.
    labels: tuple[str, ...] = ()
    #: The base that the adapter says it was trained on.
    base_name: str = ""
    #: Of the chat template that lies beside the adapter; else of the base's, which is always the one used.
    template_digest: str = ""
    carried: Carried = field(default_factory=Carried)
    #: Sentences for whoever registers.
    warnings: tuple[str, ...] = ()


def check(folder: Path, base: BaseModules, limits: Limits, *, force_noop: bool = False) -> CheckReport:
    """Check the adapter in `folder` against `base`. Raises Rejected with all reasons; OSError passes through.

    `force_noop` accepts an adapter that changes nothing (for controls in experiments).
    """
    findings = Findings()
    total = check_files(folder, limits, findings)
    findings.done()  # a folder of unknown things is not read any further
    check_texts(folder, findings)
    carried = read_carried(folder, findings)
    config = read_config(folder / CONFIG, findings, rank_max=limits.rank_max)
    header = _header(folder / WEIGHTS, limits, findings)
    if config is None or header is None:
        findings.done()
        raise AssertionError("a file that could not be read must leave a reason")
    halves = by_module(header, base, findings)
    pairs = _pairs(halves, base, config, findings)
    check_parameters(config, base, findings)
    check_experts(halves, base, findings)
    _check_coverage(halves, base, config, findings)
    around = _around(folder, config, base, findings)
    gain = 0.0
    if not findings.has("bad_dtype"):
        gain = check_numbers(folder / WEIGHTS, header, pairs, limits, findings, force_noop=force_noop)
    findings.done()
    return CheckReport(
        rank=max(pair.rank for pair in pairs),
        alpha=config.alpha,
        bytes=total,
        coverage=_coverage([pair.module for pair in pairs], base),
        modules=tuple(sorted(pair.module for pair in pairs)),
        gain=gain,
        base_model=config.base_model,
        base_revision=config.revision,
        labels=around.labels,
        base_name=config.base_model,
        template_digest=around.template_digest,
        carried=carried,
        warnings=(*around.warnings, *_faint(gain)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What the files beside the weights say."""

    labels: tuple[str, ...]
    template_digest: str
    warnings: tuple[str, ...]


def _around(folder: Path, config: LoraConfig, base: BaseModules, findings: Findings) -> _Around:
    """The base by its name, revision and digest, and the chat template."""
    digest, warning = read_lineage(folder)
    stated = Stated(name=config.base_model, revision=config.revision, digest=digest)
    labels = [*check_identity(stated, base.identity, findings)]
    warnings = [warning] if warning else []
    template, served = read_template_digest(folder), base.identity.template_digest
    if template and served and template != served:
        labels.append(OTHER_TEMPLATE)
        warnings.append("it was trained with another chat template than the base's, which is the one used")
    if adds_tokens(folder):
        labels.append("own_tokens")
        warnings.append("it brings tokens of its own, which the engine does not read")
    return _Around(labels=tuple(labels), template_digest=template or served, warnings=tuple(warnings))


def _faint(gain: float) -> tuple[str, ...]:
    """Updates this small may vanish in 16 bits; the proof of effect decides."""
    if not 0 < gain < _GAIN_FAINT:
        return ()
    return (f"its strongest update amplifies {gain:.1e} times, which 16 bits may not show",)


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
            experts = base.modules[name].experts
            pairs.append(Pair(module=name, a=a, b=b, rank=rank, scaling=scaling, outputs=b.shape[0], experts=experts))
    return pairs


def _shapes_fit(name: str, a: Tensor, b: Tensor, rank: int, module: Module, findings: Findings) -> bool:
    wanted_a, wanted_b = (rank * module.experts, module.inputs), (module.outputs, rank * module.experts)
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
