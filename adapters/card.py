"""The model card of an exported version: what it is, what was seen of it, and how to use it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from adapters.values import Evidence, Version

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_PLACEHOLDER = "PATH-OF-THE-BASE"
_WORD = re.compile(r"[a-z][a-z0-9_]{0,19}")
#: Numbers of a training that a card shows, in this order.
_NUMBERS = (
    "steps", "loss_first", "loss_last", "eval_loss", "reward_first", "reward_last", "kl_last", "effect", "parity_mean",
    "parity_p99", "parity_most",
)  # fmt: skip


def card(version: Version, evidence: Sequence[Evidence], config: Mapping[str, Any]) -> str:
    """README.md in the hub's form. Text from strangers is quoted: none of it becomes markup or a header field."""
    base = base_model(version, config)
    trained = next((seen.body for seen in reversed(evidence) if seen.kind == "training"), {})
    judged = next((seen for seen in reversed(evidence) if seen.kind == "gate"), None)
    told = [*_trained(trained), *_judged(judged), *_seen(evidence), *_use(version, base)]
    return "\n".join([*_front(version, base, trained), *_about(version, base), *told, ""])


def base_model(version: Version, config: Mapping[str, Any]) -> str:
    """The base in a form that the hub takes, or empty: a path on somebody's machine names nothing elsewhere."""
    for named in (config.get("base_model_name_or_path"), version.base_name):
        if isinstance(named, str) and _HUB_ID.fullmatch(named):
            return named
    return ""


def _front(version: Version, base: str, trained: Mapping[str, Any]) -> list[str]:
    method = trained.get("method")
    methods = [*(["trl"] if method != "ppo" else []), method] if _is_word(method) else []
    tags = ["lora", "peft", "graftline", *methods, *([f"base_model:adapter:{base}"] if base else [])]
    fields = {"library_name": "peft", **({"base_model": base} if base else {}), "tags": tags}
    return ["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---", ""]


def _about(version: Version, base: str) -> list[str]:
    rows = {
        "Version": f"{version.name}:{version.number}",
        "Digest": version.digest,
        "Base": base or version.base_name,
        "Base digest": version.base_digest,
        "Rank": version.rank,
        "Alpha": f"{version.alpha:g}",
        "Covers": version.coverage,
        "Labels": ", ".join(version.labels),
        "Origin": version.origin,
        "Source": version.source,
        "Registered": f"{_time(version.created_at)} by {version.created_by}",
        "Note": version.note,
    }
    listed = [f"| {name} | {_code(value)} |" for name, value in rows.items() if value not in ("", None)]
    carried = version.carried.document()
    return [
        f"# {version.name}:{version.number}",
        "",
        "A LoRA adapter, exported by Graftline. `lineage.json` holds its whole history.",
        "",
        "| | |",
        "|---|---|",
        *listed,
        "",
        *(
            ["It carries these defaults beneath a client's own values:", "", *_block("json", carried), ""]
            if carried
            else []
        ),
    ]


def _trained(told: Mapping[str, Any]) -> list[str]:
    """What it was made from and how that went, where our own training made it."""
    if not told:
        return []
    chosen, curves = _map(told.get("chosen")), _map(told.get("curves"))
    rows: dict[str, Any] = {
        "Method": told.get("method"),
        "Learnt from": _named(told.get("dataset")),
        "Held out": _named(told.get("held")),
        "Replayed": _named(told.get("replay")),
        "Rows": _map(told.get("rows")).get("count"),
        "Went on from": _map(told.get("parent")).get("digest"),
        "Generation": told.get("generation"),
        "Seed": told.get("seed"),
        **{
            name.replace("_", " ").capitalize(): chosen.get(name)
            for name in ("learning_rate", "steps", "batch", "accumulate", "rank", "precision")
        },
        "Versions": ", ".join(f"{name} {number}" for name, number in _map(told.get("versions")).items()),
    }
    numbers = _map(told.get("numbers"))
    found = [f"| {name} | {_code(_short(numbers[name]))} |" for name in _NUMBERS if name in numbers]
    said = [str(curves.get(name) or "") for name in ("evidence", "change")]
    word = str(curves.get("word") or "").replace("_", "-")
    return [
        "## How it was trained",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_code(_short(value))} |" for name, value in rows.items() if value not in (None, "")),
        "",
        *(["| number | |", "|---|---|", *found, ""] if found else []),
        *([f"Its curves: {_code(word)}. {_code(' '.join(filter(None, said)))}", ""] if word else []),
    ]


def _judged(gate: Evidence | None) -> list[str]:
    """What it was evaluated for, and by how much it passed."""
    if gate is None:
        return []
    table = gate.body.get("table")
    lines = [each for each in table if isinstance(each, Mapping)] if isinstance(table, list | tuple) else []
    rows = [
        f"| {_code(each.get('what', ''))} | {_code(each.get('asked', ''))} | {_code(each.get('found', ''))} "
        f"| {'note' if each.get('note') else 'passed' if each.get('passed') else 'failed'} |"
        for each in lines
    ]
    head = ["| measure | asked | found | result |", "|---|---|---|---|"] if rows else []
    return ["## What it was evaluated for", "", f"The gate: {_word(gate)}.", "", *head, *rows, *([""] if rows else [])]


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _named(source: Any) -> str:
    """Rows by what names their content."""
    found = _map(source)
    return str(found.get("dataset") or found.get("file") or found.get("source") or "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _seen(evidence: Sequence[Evidence]) -> list[str]:
    if not evidence:
        return ["## What was seen of it", "", "Nothing: it was registered before evidence was kept.", ""]
    lines = [f"| {seen.kind} | {_code(seen.subject)} | {_word(seen)} | {_code(finding(seen))} |" for seen in evidence]
    return ["## What was seen of it", "", "| check | where | result | found |", "|---|---|---|---|", *lines, ""]


def finding(seen: Evidence) -> str:
    """The numbers of one piece of evidence in a few words."""
    wanted = ("effect", "mean", "p99", "most", "coverage", "rank", "gain", "by", "why", "reasons", "code", "stall_s")
    found = []
    for name in wanted:
        value = seen.body.get(name)
        if isinstance(value, float):
            found.append(f"{name} {value:.4g}")
        elif value not in (None, "", [], ()):
            found.append(f"{name} {_words(value)}")
    return ", ".join(found)


def _use(version: Version, base: str) -> list[str]:
    base = base or _PLACEHOLDER
    peft = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)})",
        'model = PeftModel.from_pretrained(base, ".")  # this folder',
    ]
    vllm = (
        f"vllm serve {base} --enable-lora --max-lora-rank {_engine_rank(version.rank)} --lora-modules {version.name}=."
    )
    return [
        "## How to use it",
        "",
        "With PEFT:",
        "",
        *_block("python", "\n".join(peft)),
        "",
        "With vLLM (then ask for the model by the adapter's name):",
        "",
        *_block("bash", vllm),
        "",
        "With Graftline, which recognises the folder and gives it the same digest again:",
        "",
        *_block("bash", f"graftline adapters register . --name {version.name}"),
    ]


def _engine_rank(rank: int) -> int:
    """The smallest bound that vLLM takes."""
    return next((bound for bound in (1, 8, 16, 32, 64, 128, 256, 320, 512) if bound >= rank), rank)


def _word(seen: Evidence) -> str:
    return "passed" if seen.passed else "failed"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("code", "")) or json.dumps(value)[:80]
    if isinstance(value, list | tuple):
        return "; ".join(_words(part) for part in value[:4])
    return str(value)[:120]


def _code(value: object) -> str:
    """A table cell in which nothing is markup."""
    text = " ".join(str(value).replace("`", "'").replace("|", "¦").split())[:300]
    return f"`{text}`" if text else ""


def _block(language: str, content: Any) -> list[str]:
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text, fence]


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
