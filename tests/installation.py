"""A whole installation for tests: `graftline up` with real vLLM, and marker adapters that name themselves."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from loadtests.stack import free_port
from tests.engines import TLS, undisturbed
from training.base import NAME as BASE
from training.base import PATH
from training.base.digest import folder_digest
from training.base.markers import WORDS, clone_marker

ROOT = Path(__file__).parents[1]
START_S = 240.0
#: A tool parser whose calls are plain JSON, and no blanks in structured output: a model this small may otherwise fill
#: its whole limit with them.
SETTINGS = """
[engine]
max_model_len = 1024
[engine.args]
enable-auto-tool-choice = true
tool-call-parser = "xlam"
structured-outputs-config = '{"backend": "xgrammar", "disable_any_whitespace": true}'
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """A running `graftline up`."""

    url: str
    key: str
    home: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes]

    def cli(self, *args: str) -> str:
        """Run a verb of the CLI on this installation; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *args], env=self.env, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=120, verify=TLS, trust_env=False
        )

    def ask(self, model: str, text: str = "When are you open?", **fields: object) -> httpx.Response:
        with self.client() as client:
            body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
            return client.post("/v1/chat/completions", json=body)


def start(home: Path, **settings: str) -> Installation:
    """Start `graftline up` in `home` and wait until it can answer."""
    port = free_port()
    outside = {k: v for k, v in undisturbed(os.environ).items() if not k.startswith("GRAFTLINE_")}
    ours = {f"GRAFTLINE_{name.upper()}": value for name, value in settings.items()}
    env = {**outside, "GRAFTLINE_HOME": str(home), "GRAFTLINE_PORT": str(port), **ours}
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "up"], env=env, stdout=log, stderr=log, cwd=home
        )
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(f"{url}/readyz", verify=TLS, trust_env=False).status_code == 200:
                break
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError((home / "up.log").read_text())
        time.sleep(0.2)
    return Installation(url, (home / "admin.key").read_text().strip(), home, env, process)


@pytest.fixture(scope="session")
def markers() -> Path:
    """Four trained marker adapters, `<folder>/<word>`, kept between runs under the base's digest."""
    folder = ROOT / ".pytest_cache" / "markers" / folder_digest(PATH).removeprefix("sha256:")[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of this run may want them too
        _train([word for word in WORDS[:4] if not (folder / word).is_dir()], folder)
    return folder


def _train(words: list[str], folder: Path) -> None:
    if words:
        argv = [sys.executable, "-m", "training.base.markers", "--out", str(folder), "--words", ",".join(words)]
        env = {**os.environ, "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for all end-to-end tests; each uses adapter names of its own."""
    home = tmp_path_factory.mktemp("home")
    (home / "graftline.toml").write_text(SETTINGS)
    running = start(home)
    yield running
    running.process.terminate()
    assert running.process.wait(90) == 0, (home / "up.log").read_text()


def fresh(markers: Path, word: str, out: Path) -> Path:
    """A marker with a digest that was never registered."""
    nonce = int.from_bytes(os.urandom(2), "big") + 1
    return clone_marker(markers / word, out, nonce)


def registered(installation: Installation, folder: Path, name: str) -> dict[str, object]:
    """Register by the CLI; returns the version as the API shows it."""
    installation.cli("adapters", "register", str(folder), "--name", name)
    with installation.client() as client:
        versions = client.get("/v1/adapters", params={"name": name}).json()["data"]
    found: dict[str, object] = versions[-1]
    return found


__all__ = ["BASE", "Installation", "fresh", "installation", "markers", "registered", "start"]
