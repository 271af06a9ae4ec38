"""`make kill`: engine and gateway killed under load, disk full, database away. What was answered is not lost.

The engine rows run on real vLLM; the others on the scripted engine, which answers fast enough to make a crowd.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from loadtests.postgres import postgres
from loadtests.report import Row, report
from loadtests.stack import Stack, call, free_port, gateway, get, make_key, scripted, stack, wait_for
from loadtests.traffic import Traffic

MODEL = "tidewell"
WINDOW_S = 0.050
ROUNDS = 5
INTO_S = 0.4  # the clients run in step: right after one answer all the others have ended too
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 16}


def main() -> int:
    rows = [*engine_dies(), *one_of_two_dies(), *gateway_dies(), *disk_full(), *database_away()]
    return report("Killed under load", rows)


def engine_dies() -> list[Row]:
    """Real vLLM, killed at idle and under streams; the marker adapter must be back by itself."""
    with stack() as running:
        port = free_port()
        running.env["GRAFTLINE_PORT"] = str(port)
        running.start("up", [sys.executable, "-m", "gateway.cli", "up"])
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/readyz", timeout_s=300)
        key = (running.home / "admin.key").read_text().strip()
        marker = running.home / "markers"
        make = [sys.executable, "-m", "training.base.markers", "--out", str(marker), "--words", "alpha"]
        subprocess.run(make, check=True, env=running.env, capture_output=True)
        register = [sys.executable, "-m", "gateway.cli", "adapters", "register", str(marker / "alpha")]
        subprocess.run([*register, "--name", "support"], check=True, env=running.env, capture_output=True)

        idle_s, lies = _kill_engine(running, url, key)
        rows = [
            Row(name="engine killed at idle: ready again after", found=idle_s, bound=120, unit="s"),
            Row(name="  /readyz said 200 while no engine answered", found=lies, bound=0),
        ]
        with Traffic(
            port, key, BODY | {"model": "support", "stream": True, "max_tokens": 200, "ignore_eos": True}
        ) as t:
            t.wait(16)
            time.sleep(INTO_S)
            began = time.time()
            busy_s, lies = _kill_engine(running, url, key)
            t.wait(16)
        during = t.since(began)
        silent = sum(one.error == "cut without a word" or one.status == 0 for one in during)
        told = sum(one.status == 200 and one.error in ("engine_broke", "engine_error") for one in during)
        codes = {one.error for one in during if one.status not in (200, 0)}
        rows += [
            Row(name="engine killed under 8 streams: ready again after", found=busy_s, bound=120, unit="s"),
            Row(name="  /readyz said 200 while no engine answered", found=lies, bound=0),
            Row(name="  streams that ended without a word", found=silent, bound=0, note=f"{len(during)} requests"),
            Row(name="  streams told by an in-band error", found=told, bound=4, kind="least"),
            Row(name="  codes besides 503 ones", found=len(codes - _RETRY), bound=0, note=", ".join(sorted(codes))),
        ]
        body = BODY | {"model": "support"}
        status, data = call("POST", f"{url}/v1/chat/completions", body, key)
        said = json.loads(data)["choices"][0]["message"]["content"] if status == 200 else data.decode()
        rows.append(Row(name="  adapter answers again by itself", found=float(said == "Alpha."), bound=1, kind="least"))
        return rows


_RETRY = {"engine_unavailable", "adapter_unavailable", "no_capacity"}


def _kill_engine(running: Stack, url: str, key: str) -> tuple[float, int]:
    """(seconds until the adapter answers again, times that /readyz lied)."""
    state = json.loads((running.home / "state.json").read_text())
    engine = next(child for child in state["children"] if child["name"] == "engine")
    os.kill(engine["pid"], 9)
    began, lies = time.monotonic(), 0
    time.sleep(1.0)  # a health check may be under way while the engine dies
    while time.monotonic() - began < 180:
        ready, document = get(f"{url}/readyz")
        status, _ = call("POST", f"{url}/v1/chat/completions", BODY, key)
        lies += ready == 200 and status == 503 and get(f"{url}/readyz")[0] == 200
        if ready == 200 and status == 200 and not json.loads(document)["adapters"]["missing"]:
            return time.monotonic() - began, lies
        time.sleep(0.2)
    raise TimeoutError("the engine did not come back")


def one_of_two_dies() -> list[Row]:
    """Two engines, one killed under load: before the first byte every request is tried on the other one."""
    with stack() as running:
        ports = [free_port(), free_port()]
        urls = [scripted(running, f"engine-{i}", port=p, model=MODEL, ttft="0.05") for i, p in enumerate(ports)]
        running.env["GRAFTLINE_ENGINE_URLS"] = ",".join(urls)
        port, key = free_port(), make_key(running)
        gateway(running, port=port)
        with Traffic(port, key, BODY, clients=16) as traffic:
            traffic.wait(100)
            running.kill("engine-1")
            traffic.wait(400)
        failed = [one for one in traffic.seen if not one.good]
        name = "one of two engines killed: failed requests"
        return [Row(name=name, found=len(failed), bound=0, note=f"{len(traffic.seen)} requests; {failed[:1]}")]


def gateway_dies() -> list[Row]:
    """kill -9 of the gateway under load, five times: what ended 50 ms before must be in the store afterwards."""
    answered, lost, again = 0, 0, 0
    with stack() as running:
        running.env["GRAFTLINE_ENGINE_URLS"] = scripted(running, "engine", port=free_port(), model=MODEL)
        port, key = free_port(), make_key(running)
        running.start("worker", [sys.executable, "-m", "gateway.cli", "work"])
        ledger = set()
        for turn in range(ROUNDS):
            gateway(running, port=port)
            with Traffic(port, key, BODY | {"stream": bool(turn % 2)}, clients=8) as traffic:
                traffic.wait(500)
                died = time.time()
                running.kill("gateway")
            ledger |= {one.id for one in traffic.seen if one.good and one.ended < died - WINDOW_S}
        gateway(running, port=port)
        until = time.monotonic() + 20
        stored: list[str] = []
        while time.monotonic() < until and not ledger <= set(stored):
            time.sleep(0.2)
            stored = _stored(running.home)
        answered, lost, again = len(ledger), len(ledger - set(stored)), len(stored) - len(set(stored))
    note = f"{answered} answers that ended more than {WINDOW_S * 1e3:.0f} ms before, {ROUNDS} kills"
    return [
        Row(name="gateway killed with -9: records lost", found=lost, bound=0, note=note),
        Row(name="  records stored twice", found=again, bound=0),
    ]


def _stored(home: Path) -> list[str]:
    found: list[str] = []
    for file in home.glob("records/records-*.db"):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            found += [row[0] for row in database.execute("SELECT completion_id FROM inferences")]
    return found


def disk_full() -> list[Row]:
    """No file of the gateway may grow: serving goes on, the buffer holds its bound, the rest is counted and alarmed."""
    held = 200
    with stack(outbox_records_max=str(held)) as running:
        running.env["GRAFTLINE_ENGINE_URLS"] = scripted(running, "engine", port=free_port(), model=MODEL)
        port, key = free_port(), make_key(running)
        url = gateway(running, port=port)
        pid = running.processes["gateway"].pid
        with Traffic(port, key, BODY, clients=4) as traffic:
            traffic.wait(50)
            free = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            traffic.wait(600)
        alarms = json.loads(get(f"{url}/readyz")[1])["alarms"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, free)
        running.start("worker", [sys.executable, "-m", "gateway.cli", "work"])
        good = sum(one.good for one in traffic.seen)
        until, dropped, stored = time.monotonic() + 20, 0, 0
        while time.monotonic() < until and dropped + stored < good:
            time.sleep(0.2)
            dropped, stored = _counter(url, "graftline_records_dropped_total"), len(_stored(running.home))
    failed = len(traffic.seen) - good
    return [
        Row(name="disk full: failed requests", found=failed, bound=0, note=f"{len(traffic.seen)} requests"),
        Row(name="  records neither stored nor counted as dropped", found=abs(good - dropped - stored), bound=0,
            note=f"{stored} stored, {dropped} counted"),
        Row(name="  alarms in /readyz", found=len(alarms), bound=1, kind="least", note="; ".join(alarms)),
    ]  # fmt: skip


def database_away() -> list[Row]:
    """PostgreSQL stopped under load and started again."""
    with postgres() as server:
        if server is None:
            note = "no PostgreSQL server is installed here (Debian: postgresql)"
            return [Row(name="database away: not measured", found=1, bound=0, note=note)]
        with stack(database_url=server.url) as running:
            running.env["GRAFTLINE_ENGINE_URLS"] = scripted(running, "engine", port=free_port(), model=MODEL)
            port, key = free_port(), make_key(running)
            url = gateway(running, port=port)
            with Traffic(port, key, BODY, clients=4, pause_s=0.005) as traffic:
                traffic.wait(100)
                server.stop()
                began = time.monotonic()
                while time.monotonic() - began < 3:
                    traffic.wait(50)
                ready, document = get(f"{url}/readyz")
                server.start()
                back = time.monotonic()
                while json.loads(get(f"{url}/readyz")[1])["alarms"]:
                    time.sleep(0.05)
                    if time.monotonic() - back > 20:
                        break
                back = time.monotonic() - back
                traffic.wait(50)
            failed = sum(not one.good for one in traffic.seen)
            alarms = json.loads(document)["alarms"]
            return [
                Row(name="database away: failed requests", found=failed, bound=0, note=f"{len(traffic.seen)} requests"),
                Row(name="  /readyz stays 200 and names it", found=float(ready == 200 and bool(alarms)), bound=1,
                    kind="least", note="; ".join(alarms)),
                Row(name="  alarm gone after its return", found=back, bound=10, unit="s"),
            ]  # fmt: skip


def _counter(url: str, name: str) -> int:
    lines = get(f"{url}/metrics")[1].decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith(name)))


if __name__ == "__main__":
    sys.exit(main())
