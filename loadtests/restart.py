"""`make restart`: 1 000 adapters are registered, the engine is killed, and all of them must be back by themselves.

Real vLLM. The adapters are one trained marker with one bit of one weight changed each, so every digest is different.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loadtests.report import Row, report
from loadtests.stack import call, free_port, get, stack, wait_for

COUNT = int(os.environ.get("GRAFTLINE_RESTART_COUNT", "1000"))
BACK_S_MAX = 10.0
BOUNDARY = "graftline-boundary"


def main() -> int:
    with stack() as running:
        port = free_port()
        running.env["GRAFTLINE_PORT"] = str(port)
        running.start("up", [sys.executable, "-m", "gateway.cli", "up"])
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/readyz", timeout_s=300)
        key = (running.home / "admin.key").read_text().strip()
        make = [sys.executable, "-m", "training.base.markers", "--out", str(running.home / "m"), "--words", "alpha"]
        subprocess.run(make, check=True, env=running.env, capture_output=True)
        folder = running.home / "m" / "alpha"
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda n: upload(port, key, folder, n), range(COUNT)))
        registered_s = time.monotonic() - began
        until(lambda: serving(url) == COUNT, 300)
        verified_s = time.monotonic() - began

        state = json.loads((running.home / "state.json").read_text())
        pid = next(child["pid"] for child in state["children"] if child["name"] == "engine")
        os.kill(pid, 9)
        until(lambda: engine_ready_at(running.home, pid) > 0, 200)
        healthy_at = engine_ready_at(running.home, pid)
        until(lambda: serving(url) == COUNT, 120)
        back_s = time.time() - healthy_at
        wrong = sum(said(url, key, f"many-{n}") != "Alpha." for n in range(0, COUNT, max(1, COUNT // 50)))
    rows = [
        Row(name=f"{COUNT} adapters back after the engine is healthy", found=back_s, bound=BACK_S_MAX, unit="s"),
        Row(name="  of 50 asked, wrong", found=wrong, bound=0),
        Row(
            name="registrations refused",
            found=sum(status not in (201, 202) for status in statuses),
            bound=0,
            note=f"registered in {registered_s:.0f} s, all verified after {verified_s:.0f} s",
        ),
    ]
    return report("An engine restarts under many adapters", rows)


def upload(port: int, key: str, folder: Path, number: int) -> int:
    """Register one variation as a multipart archive; returns the status."""
    weights = bytearray((folder / "adapter_model.safetensors").read_bytes())
    first = 8 + int.from_bytes(weights[:8], "little")
    low = int.from_bytes(weights[first : first + 2], "little") ^ (number + 1)
    weights[first : first + 2] = low.to_bytes(2, "little")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in (
            ("adapter_model.safetensors", bytes(weights)),
            ("adapter_config.json", (folder / "adapter_config.json").read_bytes()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    parts = b""
    for name, value in (("name", f"many-{number}"), ("wait_s", "0")):
        parts += f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    parts += f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'.encode()
    body = parts + archive.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/v1/adapters", body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def serving(url: str) -> int:
    """Adapters that the engine serves, as the fleet loop counts them."""
    lines = get(f"{url}/metrics")[1].decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("graftline_replica_adapters{")))


def engine_ready_at(home: Path, but: int) -> float:
    """Unix time since which another engine than `but` is ready; 0 while there is none."""
    state = json.loads((home / "state.json").read_text())
    engine = next(child for child in state["children"] if child["name"] == "engine")
    return float(engine["since"]) if engine["state"] == "ready" and engine["pid"] != but else 0.0


def said(url: str, key: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "When are you open?"}], "max_tokens": 8}
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
