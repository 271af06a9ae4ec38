"""The engine as a process: our plugin in it, where it listens, what it counts, how a probe reads it."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

from gateway.engines import plugin
from gateway.engines.conformance.bench import Bench, Check, Found

#: The smallest version that serves the right tenant's adapter (vllm#47725).
VERSION_MIN = (0, 32)
METRICS = (
    "process_start_time_seconds",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
    "vllm:corrupted_requests_total",
)
_LISTENING = "0A"

#: Of a core, while the engine is asked for a token twice a second: 8 % with our plugin, 103 % without.
RESTING = 0.5


async def version(bench: Bench) -> Found:
    info = await bench.vllm.describe()
    found = tuple(int(part) for part in re.findall(r"\d+", info.version)[:2])
    ok = found >= VERSION_MIN and info.model == bench.base and await bench.vllm.healthy()
    return Found(text=f"{info.version}, serves {info.model}, {info.max_model_len} tokens", ok=ok)


async def plugin_is_on(bench: Bench) -> Found:
    """Where it is not needed (a GPU) it says so; a line beginning with OFF names what vLLM changed."""
    on, off = plugin.in_log(bench.log.read_text(errors="replace"))
    text = "OFF: " + off[0] if off else "; ".join(on) or "no line of it"
    return Found(text=text, ok=bool(on and not off))


async def rests(bench: Bench) -> Found:
    """Asked twice a second, as the patrol does, its processes sleep in between."""
    before, began = _processor_s(bench.pid() or 0), time.monotonic()
    for _ in range(6):
        await bench.say(bench.base, "Hello!", max_tokens=1)
        await asyncio.sleep(0.5)
    share = (_processor_s(bench.pid() or 0) - before) / (time.monotonic() - began)
    return Found(text=f"{share:.0%} of a core", ok=0 < share <= RESTING)


async def listens(bench: Bench) -> Found:
    """The socket answers (or no check would pass); no HTTP on TCP, and nothing at all beyond loopback."""
    ports = _listening(_tree(bench.pid() or 0))
    beyond = [address for address in ports if not address.startswith(("0100007F", "00000000000000000000000001000000"))]
    http = [address for address in ports if await _speaks_http(address)]
    text = f"{len(http)} HTTP ports, {len(beyond)} beyond loopback, {len(ports)} of torch's on loopback"
    return Found(text=text, ok=not http and not beyond)


async def counters(bench: Bench) -> Found:
    """Everything that we read from /metrics is there, under its name, and what counts tokens moves."""
    page = (await bench.http.get("/metrics")).text
    missing = [name for name in METRICS if not re.search(rf"^{re.escape(name)}[{{ ]", page, re.MULTILINE)]
    before = await bench.vllm.gauges()
    await bench.say(bench.base, "Hello!", max_tokens=4, ignore_eos=True)
    after = await bench.vllm.gauges()
    moved = after.generation_tokens - before.generation_tokens, after.prompt_tokens - before.prompt_tokens
    text = f"missing {missing}" if missing else f"all there; +{moved[0]} generated, +{moved[1]} prompt"
    return Found(text=text, ok=not missing and moved[0] == 4 and moved[1] > 0 and after.started_at > 0)


async def probes(bench: Bench) -> Found:
    """Proof of effect: the base against itself is exactly 0, an adapter is far from it."""
    prompt = "Where is my order 48213?"
    base, again = await bench.vllm.probe(bench.base, prompt), await bench.vllm.probe(bench.base, prompt)
    marker = await bench.vllm.probe(bench.markers[0].name, prompt)
    itself = _distance(base.prompt_logprobs, again.prompt_logprobs)
    effect = _distance(base.prompt_logprobs, marker.prompt_logprobs)
    ok = base.finite and marker.finite and itself == 0 and effect >= 0.5
    return Found(text=f"base to itself {itself:g}, to an adapter {effect:.1f}", ok=ok)


def _distance(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    return max(abs(a - b) for a, b in zip(one, two, strict=True))


def _tree(pid: int) -> list[int]:
    """A process and all that descends from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    if children.exists():
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += _tree(int(child))
    return found


def _processor_s(pid: int) -> float:
    """What a process and all that descends from it have used."""
    ticks = 0
    for each in _tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _listening(pids: list[int]) -> list[str]:
    """Local addresses, in the kernel's hexadecimal, on which these processes accept TCP connections."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            rows = (line.split() for line in Path(table).read_text().splitlines()[1:])
            found += [row[1] for row in rows if row[3] == _LISTENING and row[9] in inodes]
    return found


async def _speaks_http(address: str) -> bool:
    port = int(address.rpartition(":")[2], 16)
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            return (await reader.read(5)).startswith(b"HTTP/")
    except (OSError, TimeoutError):
        return False


CHECKS = (
    Check(behaviour="version and /health", expected="0.32 or later, healthy, under the base's name", run=version),
    Check(behaviour="our plugin", expected="on, with no OFF line in the log", run=plugin_is_on),
    Check(behaviour="rest between questions", expected="half a core or less, asked twice a second", run=rests),
    Check(
        behaviour="where it listens", expected="the unix socket; no HTTP on TCP; nothing beyond loopback", run=listens
    ),
    Check(behaviour="/metrics", expected="all that we read, and it moves", run=counters),
    Check(behaviour="logprobs of a probe", expected="base to itself 0, adapter >= 0.5", run=probes),
)
