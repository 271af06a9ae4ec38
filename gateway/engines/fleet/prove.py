"""Does a replica serve what was recorded? Asks, compares, and says whose fault a difference is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from adapters.checks.parity import FIRST, Certificate, Tolerances, certificate
from adapters.checks.probe import Recorded, recorded
from adapters.errors import Rejected
from gateway.engines.errors import AdapterMissing, EngineRefused
from gateway.engines.fleet.book import reason
from gateway.engines.vllm import Probe, Vllm

#: Token ids in no language in particular, which every vocabulary has: several tokens go through every layer.
PROMPTS = ((5, 17, 33, 71, 90, 101, 117, 64), (44, 12, 99, 35, 80, 21, 66, 110))

#: Tokens of each prompt that are asked for one by one, and how many at once.
PLACES = 24
AT_ONCE = 8


async def certify(
    engine: Vllm, name: str, known: Recorded, *, idle: bool = False, tolerances: Tolerances = FIRST
) -> Certificate:
    """Compare what `name` gives on this engine with what was recorded. An `idle` engine is asked for all prompts at
    once; on others that would be one large step, for which everybody's stream stands still. Raises what an absent
    engine raises, and AdapterMissing.

    A difference is looked at again, token by token, as answers are made. That is slower and it is what counts: vLLM
    gives the logprobs of a prompt without an adapter's update of the head.
    """
    served = await _ask(engine, name, known.prompts, idle=idle)
    found = served if isinstance(served, Certificate) else certificate(known, served, tolerances)
    if found.passed or not finite(found):
        return found
    places = [_spread(len(row)) for row in known.logprobs]
    try:
        weighed = await _weigh(engine, name, known.prompts, places)
    except AdapterMissing:
        raise
    except EngineRefused as error:
        code = "not_finite" if error.code == "engine_poisoned" else ""
        return _refused(code, error) if code else found
    return certificate(_only(known, places), weighed, tolerances)


async def certify_base(engine: Vllm, base_name: str, known: Recorded | None, *, idle: bool = False) -> Certificate:
    """The same for the base; with nothing recorded of it, whether its numbers are finite."""
    if known is not None:
        return await certify(engine, base_name, replace(known, logprobs=known.base_logprobs), idle=idle)
    served = await _ask(engine, base_name, PROMPTS, idle=idle)
    return served if isinstance(served, Certificate) else Certificate(passed=True, mean=0.0, p99=0.0, most=0.0)


async def prove(
    engine: Vllm, name: str, base_name: str, known: Recorded | None, *, idle: bool = False
) -> tuple[Recorded | None, Certificate]:
    """The certificate of a version on this engine, by what was recorded; where nothing was, because nothing probed it
    before, the engine itself records, and that recording comes back too."""
    if known is not None:
        return None, await certify(engine, name, known, idle=idle)
    began = time.monotonic()
    theirs, bases = await _ask(engine, name, PROMPTS), await _ask(engine, base_name, PROMPTS)
    if isinstance(theirs, Certificate):
        return None, theirs
    if isinstance(bases, Certificate):
        return None, bases
    seconds, by = time.monotonic() - began, f"engine {engine.name}"
    try:
        fresh = recorded(PROMPTS, theirs, bases, seconds=seconds, by=by, effect_min=0.0)
    except Rejected as error:
        return None, Certificate(passed=False, mean=0.0, p99=0.0, most=0.0, reasons=error.reasons)
    return fresh, await certify(engine, name, fresh)


def finite(found: Certificate) -> bool:
    """Whether what did not pass was numbers at all."""
    return all(each.code != "not_finite" for each in found.reasons)


def fault(
    *,
    is_finite: bool,
    known_here: bool,
    base_passed: bool,
    engine_known: bool,
    others_passed: bool,
    contained: bool = False,
) -> Literal["version", "replica", "both"]:
    """Who is at fault when a version is not served as it was recorded.

    `known_here`: an engine like this one certified it before; `others_passed`: another replica of now did. A base that
    differs as well accuses the replica, but only where engines like it have certified something (`engine_known`): one
    that never agreed with the prober would be restarted for ever. Numbers that are none poison the replica, whoever
    made them, unless the engine contained them.
    """
    innocent = known_here or others_passed or (engine_known and not base_passed)
    if not is_finite:
        if contained:
            return "version"
        return "replica" if innocent else "both"
    return "replica" if innocent else "version"


async def _ask(
    engine: Vllm, name: str, prompts: Sequence[Sequence[int]], *, idle: bool = False
) -> list[tuple[float, ...]] | Certificate:
    turn = asyncio.Semaphore(len(prompts) if idle else 1)

    async def one(prompt: Sequence[int]) -> Probe:
        async with turn:
            return await engine.probe(name, prompt, tokens=1)

    found_all = await asyncio.gather(*map(one, prompts), return_exceptions=True)
    answers: list[Probe] = []
    for each in found_all:
        if isinstance(each, EngineRefused) and not isinstance(each, AdapterMissing):
            return _refused("not_finite" if each.code == "engine_poisoned" else each.code, each)
        if isinstance(each, BaseException):
            raise each
        answers.append(each)
    if not all(answer.finite for answer in answers):
        found = reason(
            "not_finite",
            "a logprob that is not a finite number",
            allowed="finite logprobs for every probe prompt",
            advice="Train it again; a diverged or overflowing adapter cannot serve.",
        )
        contained = all(answer.finite or answer.contained for answer in answers)
        return Certificate(passed=False, mean=0.0, p99=0.0, most=0.0, reasons=(found,), contained=contained)
    return [answer.prompt_logprobs for answer in answers]


async def _weigh(
    engine: Vllm, name: str, prompts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
) -> list[tuple[float, ...]]:
    """The logprobs of the prompts' tokens at these places, each asked for by itself, a few at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: Sequence[int], at: int) -> float:
        async with turn:
            return await engine.weigh(name, prompt[: at + 1], prompt[at + 1])

    rows = (asyncio.gather(*(one(p, at) for at in chosen)) for p, chosen in zip(prompts, places, strict=True))
    return [tuple(row) for row in await asyncio.gather(*rows)]


def _spread(count: int) -> tuple[int, ...]:
    """At most PLACES of the first `count` numbers, evenly spread."""
    return tuple(sorted({at * count // min(count, PLACES) for at in range(min(count, PLACES))}))


def _only(known: Recorded, places: Sequence[Sequence[int]]) -> Recorded:
    """What was recorded at these places."""

    def taken(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(row[at] for at in chosen) for row, chosen in zip(rows, places, strict=True))

    return replace(known, logprobs=taken(known.logprobs), base_logprobs=taken(known.base_logprobs))


def _refused(code: str, error: EngineRefused) -> Certificate:
    return Certificate(passed=False, mean=0.0, p99=0.0, most=0.0, reasons=(reason(code, str(error)),))
