"""What the engine does with adapters that should never have reached it. Last, for NaN stays in its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.engines.conformance import broken
from gateway.engines.conformance.bench import Bench, Check, Found, error_of, told

_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def refused(name: str, words: str, make: Callable[[Path, Path], Path]) -> Check:
    """The engine refuses the folder with 500 and says why, and goes on answering."""

    async def run(bench: Bench) -> Found:
        folder = make(bench.markers[0].folder, bench.folder / name.replace(" ", "-"))
        answer = await bench.load(f"broken@{name.replace(' ', '-')}", folder)
        error = error_of(answer)
        alive = bool(await bench.say(bench.base, "Hello!"))
        meant = bench.vllm.refusal(answer.status_code, answer.content, "/v1/load_lora_adapter")
        why = " ".join(meant.message.removeprefix("The engine refused the adapter: ").split())
        ok = answer.status_code == 500 and error.get("type") == "InternalServerError" and alive
        return Found(text=f"{answer.status_code} {why[:90]}", ok=ok and words in answer.text and bool(why))

    return Check(behaviour=f"load: {name}", expected=f"500 with the reason ({words or 'any'}); goes on", run=run)


async def nan_is_seen(bench: Bench) -> Found:
    """The engine takes an all-NaN adapter; with logprobs its answer is refused, by which the probe knows it."""
    folder = broken.change(bench.markers[0].folder, bench.folder / "nan", broken.filled(float("nan")))
    loaded = await bench.load("nan@0", folder)
    before = (await bench.vllm.gauges()).corrupted
    asked = await bench.chat("nan@0", "Hello!", logprobs=True, cache_salt="nan")
    probe = await bench.vllm.probe("nan@0", "Hello there!")
    corrupted = (await bench.vllm.gauges()).corrupted - before
    await bench.unload("nan@0")
    ok = loaded.status_code == 200 and asked.status_code == 400 and "Out of range float" in asked.text
    text = f"load {loaded.status_code}, {told(asked)[:60]}, finite {probe.finite}, counted {corrupted}"
    return Found(text=text, ok=ok and not probe.finite and corrupted > 0)


CHECKS = (
    refused(
        "rank over the limit",
        "greater than max_lora_rank",
        lambda good, to: broken.change(good, to, broken.of_rank(64), r=64, lora_alpha=128),
    ),
    refused("DoRA", "DoRA", lambda good, to: broken.copy(good, to, config={"use_dora": True})),
    refused("bias", "bias", lambda good, to: broken.copy(good, to, config={"bias": "all"})),
    refused(
        "modules_to_save", "modules_to_save", lambda g, to: broken.copy(g, to, config={"modules_to_save": _MODULES[:1]})
    ),
    refused("truncated weights", "", broken.truncate),
    refused("wrong shapes", "", lambda good, to: broken.change(good, to, broken.wider)),
    refused("lora_B missing", "", lambda good, to: broken.change(good, to, broken.without_b)),
    refused(
        "unknown module",
        "",
        lambda good, to: broken.change(good, to, broken.elsewhere, target_modules=[*_MODULES, "banana_proj"]),
    ),
    Check(
        behaviour="an adapter of NaN",
        expected="200; with logprobs 400; probe not finite; counted",
        run=nan_is_seen,
    ),
)
