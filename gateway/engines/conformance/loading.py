"""Loading and unloading: status codes, words, and what happens to requests meanwhile."""

from __future__ import annotations

import httpx
import orjson

from gateway.engines.conformance.bench import Bench, Check, Found, Marker, error_of, eventually, text_of, told


async def load_answers(bench: Bench) -> Found:
    marker = bench.new_marker()
    answer = await bench.load(marker.name, marker.folder)
    expected = f"Success: LoRA adapter '{marker.name}' added successfully."
    said = await bench.say(marker.name, "Hello!")
    ok = answer.status_code == 200 and answer.text == expected and marker.word.lower() in said.lower()
    seconds = answer.elapsed.total_seconds()
    return Found(text=f"{told(answer)[:45]}… in {seconds * 1000:.0f} ms, says {said!r}", ok=ok)


async def same_name_again(bench: Bench) -> Found:
    marker = bench.markers[0]
    answer = await bench.load(marker.name, marker.folder)
    return _refused(answer, 400, "InvalidUserInput", "has already been loaded")


async def base_name(bench: Bench) -> Found:
    answer = await bench.load(bench.base, bench.markers[0].folder)
    return _refused(answer, 400, "InvalidUserInput", "conflicts with a served base model")


async def missing_field(bench: Bench) -> Found:
    answer = await bench.http.post("/v1/load_lora_adapter", json={"lora_name": "x"})
    return _refused(answer, 400, "Bad Request", "lora_path")


async def missing_folder(bench: Bench) -> Found:
    return _refused(await bench.load("nowhere", bench.folder / "nowhere"), 404, "NotFoundError", "No adapter found")


async def folder_without_config(bench: Bench) -> Found:
    folder = bench.folder / "empty"
    folder.mkdir(exist_ok=True)
    return _refused(await bench.load("empty", folder), 404, "NotFoundError", "No adapter found")


async def unload_answers(bench: Bench) -> Found:
    marker = bench.new_marker()
    await bench.load(marker.name, marker.folder)
    answer = await bench.unload(marker.name)
    again = await bench.unload(marker.name)
    asked = await bench.chat(marker.name, "Hello!")
    ok = answer.status_code == 200 and again.status_code == 404 and asked.status_code == 404
    return Found(text=f"{answer.status_code}, again {again.status_code}, asked {asked.status_code}", ok=ok)


async def unknown_adapter(bench: Bench) -> Found:
    answer = await bench.chat("nobody@0000", "Hello!")
    error = error_of(answer)
    ok = answer.status_code == 404 and error.get("type") == "NotFoundError" and error.get("param") == "model"
    return Found(text=told(answer), ok=ok)


async def listed(bench: Bench) -> Found:
    marker = bench.new_marker()
    await bench.load(marker.name, marker.folder)
    cards = {card["id"]: card for card in (await bench.http.get("/v1/models")).json()["data"]}
    before = marker.name in cards and cards[marker.name]["parent"] == bench.base and cards[bench.base]["parent"] is None
    seen = marker.name in await bench.vllm.adapters()
    await bench.unload(marker.name)
    after = marker.name in await bench.vllm.adapters()
    return Found(text=f"listed {before}, read so {seen}, after unload {after}", ok=before and seen and not after)


async def in_flight_finishes(bench: Bench) -> Found:
    """A stream that began before the unload ends as if nothing had happened."""
    marker = bench.new_marker()
    await bench.load(marker.name, marker.folder)
    text, finish, unloaded = "", None, 0
    async with bench.streaming(marker.name, "Hello!", max_tokens=200, ignore_eos=True) as events:
        async for event in events:
            if event == "[DONE]":
                break
            text += text_of(event)
            finish = orjson.loads(event)["choices"][0]["finish_reason"] or finish
            if text and not unloaded:
                unloaded = (await bench.unload(marker.name)).status_code
    ok = unloaded == 200 and finish == "length" and text.lower().startswith(marker.word.lower())
    return Found(text=f"unload {unloaded} mid-stream, finish {finish!r}, began {text[:12]!r}", ok=ok)


async def next_digest(bench: Bench) -> Found:
    """The way a version is replaced: the new digest's name beside the old one, then the old one goes."""
    old, new = bench.new_marker(), bench.new_marker()
    while new.word == old.word:
        new = bench.new_marker()
    await bench.load(old.name, old.folder)
    first = await bench.say(old.name, "Hello!")
    await bench.load(new.name, new.folder)
    second = await bench.say(new.name, "Hello!")
    await bench.unload(old.name)
    third = await bench.say(new.name, "Hello!")
    ok = old.word.lower() in first.lower() and all(new.word.lower() in said.lower() for said in (second, third))
    return Found(text=f"{first!r} → {second!r}, {third!r}", ok=ok)


async def load_beside_a_stream(bench: Bench) -> Found:
    """A load takes a slot, perhaps that of an adapter that is answering: its answer must not change."""
    marker = bench.new_marker()
    await bench.load(marker.name, marker.folder)
    fields = {"max_tokens": 150, "ignore_eos": True}
    alone = await bench.say(marker.name, "Hello!", **fields)
    text = ""
    loaded: list[Marker] = []
    async with bench.streaming(marker.name, "Hello!", **fields) as events:
        async for event in events:
            if event == "[DONE]":
                break
            text += text_of(event)
            if text and len(loaded) < bench.slots:
                loaded.append(bench.new_marker())
                await bench.load(loaded[-1].name, loaded[-1].folder)
    for other in loaded:
        await bench.unload(other.name)
    return Found(text=f"{len(loaded)} loads, text {'the same' if text == alone else 'CHANGED'}", ok=text == alone)


async def gone_after_a_disconnect(bench: Bench) -> Found:
    return await _cancelled(bench, stream=True)


async def gone_without_streaming(bench: Bench) -> Found:
    return await _cancelled(bench, stream=False)


async def _cancelled(bench: Bench, *, stream: bool) -> Found:
    """Leave in the middle of a long answer; `num_requests_running` must fall long before it would have ended."""
    body = {"model": bench.base, "prompt": "Hello", "max_tokens": 1500, "ignore_eos": True, "stream": stream}
    timeout = httpx.Timeout(30, read=30 if stream else 0.4)

    async def running() -> bool:
        return (await bench.vllm.gauges()).running > 0

    async def idle() -> bool:
        return not await running()

    seen = False
    try:
        async with bench.http.stream("POST", "/v1/completions", json=body, timeout=timeout) as answer:
            async for _ in answer.aiter_lines():
                seen = await running()
                break
    except httpx.ReadTimeout:
        seen = True  # 0.4 s of silence: the engine was at work on 1,500 tokens, and may have stopped already
    took = await eventually(idle, 3)
    if took is None:
        return Found(text="still running after 3 s", ok=False)
    return Found(text=f"idle {took * 1000:.0f} ms after leaving", ok=seen)


def _refused(answer: httpx.Response, status: int, kind: str, words: str) -> Found:
    error = error_of(answer)
    ok = answer.status_code == status and error.get("type") == kind and words in answer.text
    return Found(text=told(answer), ok=ok)


CHECKS = (
    Check(behaviour="load", expected="200 Success…; the next answer is its own", run=load_answers),
    Check(behaviour="load the same name again", expected="400 InvalidUserInput, already loaded", run=same_name_again),
    Check(behaviour="load under the base's name", expected="400 InvalidUserInput, conflicts", run=base_name),
    Check(behaviour="load without a path", expected="400 Bad Request, names the field", run=missing_field),
    Check(behaviour="load a folder that is not there", expected="404 NotFoundError", run=missing_folder),
    Check(behaviour="load a folder without a config", expected="404 NotFoundError", run=folder_without_config),
    Check(behaviour="unload, unload again, ask", expected="200, 404, 404", run=unload_answers),
    Check(behaviour="ask an unknown adapter", expected="404 NotFoundError, param model", run=unknown_adapter),
    Check(behaviour="/v1/models", expected="lists a loaded adapter with its parent, until unloaded", run=listed),
    Check(
        behaviour="unload during a stream",
        expected="200; the stream finishes on the old weights",
        run=in_flight_finishes,
    ),
    Check(behaviour="replace a version by a new digest's name", expected="the new word at once", run=next_digest),
    Check(
        behaviour="loads that take an answering adapter's slot",
        expected="its answer unchanged",
        run=load_beside_a_stream,
    ),
    Check(behaviour="client leaves a stream", expected="the engine stops its work", run=gone_after_a_disconnect),
    Check(behaviour="client leaves before an answer", expected="the engine stops its work", run=gone_without_streaming),
)
