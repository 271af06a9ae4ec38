"""`make restart`: 1 000 adapters are registered, the engine is killed, and all of them must be back by themselves.

Real vLLM. The adapters are one trained marker with one bit of one weight changed each, so every digest is different.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loadtests import control
from loadtests.markers import Files, files, markers, packed, varied
from loadtests.report import Row, report
from loadtests.stack import Up, call, get, stack, up

COUNT = int(os.environ.get("GRAFTLINE_RESTART_COUNT", "1000"))
BACK_S_MAX = 10.0


def main() -> int:
    marker = files(markers(("alpha",))["alpha"])
    with stack() as running:
        ours = up(running)
        url, key = ours.url, ours.key
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda n: register(ours, marker, n), range(COUNT)))
        registered_s = time.monotonic() - began
        print(
            f"registered in {registered_s:.0f} s; each is probed and certified now, about three a second …", flush=True
        )
        until(lambda: all_serve(url), 1200)
        verified_s = time.monotonic() - began

        state = json.loads((running.home / "state.json").read_text())
        pid = next(child["pid"] for child in state["children"] if child["name"] == "engine")
        os.kill(pid, 9)
        until(lambda: not all_serve(url), 60)  # what is true of the dead engine says nothing of the next
        until(lambda: engine_ready_at(running.home, pid) > 0, 200)
        healthy_at = engine_ready_at(running.home, pid)
        until(lambda: all_serve(url), 120)
        back_s = time.time() - healthy_at
        answers = [said(url, key, f"many-{n}") for n in range(0, COUNT, max(1, COUNT // 50))]
    wrong = [answer for answer in answers if answer != "Alpha."]
    rows = [
        Row(name=f"{COUNT} adapters back after the engine is healthy", found=back_s, bound=BACK_S_MAX, unit="s"),
        Row(name="  of 50 asked, wrong", found=len(wrong), bound=0, note="; ".join(wrong[:1])[:200]),
        Row(
            name="registrations refused",
            found=sum(status not in (201, 202) for status in statuses),
            bound=0,
            note=f"registered in {registered_s:.0f} s, all verified after {verified_s:.0f} s",
        ),
    ]
    return report("An engine restarts under many adapters", rows)


def register(ours: Up, marker: Files, number: int) -> int:
    """Register one variation without waiting for its verdict; returns the status."""
    return control.upload(ours, f"many-{number}", packed(varied(marker, number)), wait_s=0).status


def all_serve(url: str) -> bool:
    """Whether the gateway, by which people ask, knows an engine for each of them."""
    adapters = json.loads(get(f"{url}/readyz")[1])["adapters"]
    return adapters["wanted"] == COUNT and not adapters["missing"]


def engine_ready_at(home: Path, but: int) -> float:
    """Unix time since which another engine than `but` is ready; 0 while there is none."""
    state = json.loads((home / "state.json").read_text())
    engine = next(child for child in state["children"] if child["name"] == "engine")
    return float(engine["since"]) if engine["state"] == "ready" and engine["pid"] != but else 0.0


def said(url: str, key: str, model: str) -> str:
    turns = [{"role": "user", "content": "When are you open?"}]
    body = {"model": model, "messages": turns, "max_tokens": 8, "temperature": 0}
    status, data = call("POST", f"{url}/v1/chat/completions", body, key)
    return str(json.loads(data)["choices"][0]["message"]["content"]) if status == 200 else data.decode()


def until(happened: object, timeout_s: float) -> None:
    """Wait for a condition; raises `TimeoutError`."""
    assert callable(happened)
    end = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
