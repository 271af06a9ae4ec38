"""What the engine does with adapters that should never have reached it. Last, for what may stay in its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.engines.conformance import broken, mixing
from gateway.engines.conformance.bench import Bench, Check, Found, error_of
from gateway.engines.errors import EnginePoisoned

_NAN = "nan@00000000000000ff"
#: Long enough that what it leaves behind reaches beyond the prompts that come after it.
_LONG = "I would like to know a lot about this and that and everything else that you can think of, please tell me. " * 6
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


async def nan_ends_a_request(bench: Bench) -> Found:
    """The engine takes an adapter of NaN; with our plugin each request to it ends at once, whole or streamed, with an
    error that names it and by which the probe knows it."""
    folder = broken.change(bench.markers[0].folder, bench.folder / "nan", broken.filled(float("nan")))
    loaded = await bench.load(_NAN, folder)
    before = (await bench.vllm.gauges()).corrupted
    asked = await bench.chat(_NAN, "Hello!", cache_salt="nan")
    whole = bench.vllm.refusal(asked.status_code, asked.content)
    streamed = ""
    async with bench.streaming(_NAN, "Hello!", cache_salt="nan") as events:
        async for event in events:
            streamed = event if event.startswith('{"error"') else streamed
    inband = bench.vllm.refusal(500, streamed.encode())
    probe = await bench.vllm.probe(_NAN, "Hello there!")
    corrupted = (await bench.vllm.gauges()).corrupted - before
    await bench.unload(_NAN)
    named = [isinstance(error, EnginePoisoned) and _NAN in error.first for error in (whole, inband)]
    ok = loaded.status_code == 200 and all(named) and not probe.finite and corrupted == 3
    text = f"{asked.status_code} {whole.code}, in-band {inband.code}, finite {probe.finite}, counted {corrupted}"
    return Found(text=text, ok=ok)


async def neighbours_of_nan(bench: Bench) -> Found:
    """After long prompts to an adapter of NaN, the base and a good adapter answer short ones. On the CPU nothing may
    differ; elsewhere NaN may linger in the cache, but then it must be an error and never an answer."""
    folder = broken.change(bench.markers[0].folder, bench.folder / "nan2", broken.filled(float("nan")))
    asked = [(model, question) for question in mixing.QUESTIONS[:6] for model in (bench.base, bench.markers[0].name)]
    before = [await bench.say(model, question) for model, question in asked]
    await bench.load(_NAN, folder)
    wrong = refused = 0
    for turn in range(3):
        await bench.chat(_NAN, _LONG, cache_salt=f"nan{turn}")
        for (model, question), said in zip(asked, before, strict=True):
            answer = await bench.chat(model, question, cache_salt=f"nan{turn}")
            if answer.status_code != 200:
                refused += isinstance(bench.vllm.refusal(answer.status_code, answer.content), EnginePoisoned)
            else:
                wrong += answer.json()["choices"][0]["message"]["content"] != said
    await bench.unload(_NAN)
    text = f"of {3 * len(asked)}: {wrong} differ, {refused} ended as NaN"
    return Found(text=text, ok=wrong == 0 and (refused == 0 or bench.device != "cpu"))


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
        expected="loads; each request ends with our error, which names it; counted",
        run=nan_ends_a_request,
    ),
    Check(
        behaviour="neighbours of an adapter of NaN",
        expected="no answer differs; on the CPU none is ended either",
        run=neighbours_of_nan,
    ),
)
