"""The same run on a local Ray head, by Ray Jobs: started, found again, watched, stopped. Ray is started here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.stack import free_port
from training.launchers.ray import RayLauncher
from training.launchers.section import Launch
from training.launchers.values import LaunchSpec, Running, training

#: Beside our interpreter, or anywhere on the path: the launcher speaks HTTP, so Ray may have an environment of its own.
RAY = shutil.which("ray", path=str(Path(sys.executable).parent)) or shutil.which("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(RAY is None, reason="Ray is not installed: pip install 'ray[default]'"),
]
RECIPE = """
name: desk
method: sft
data: {train: "tidewell:corrected_fact", rows_max: 16}
optim: {learning_rate: 2e-3, steps: 2, batch: 4}
"""


def until(asked: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not asked():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def ray() -> Iterator[RayLauncher]:
    """A head on free ports, with a folder of its own: Ray's sockets need a short path."""
    assert RAY is not None
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        words = [
            *(RAY, "start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats"),
            *("--node-ip-address", "127.0.0.1", "--port", str(free_port())),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(port)),
            *("--ray-client-server-port", str(free_port()), "--dashboard-agent-listen-port", str(free_port())),
            *("--object-store-memory", str(80 << 20), "--temp-dir", folder),
        ]
        with (Path(folder) / "head.log").open("wb") as log:
            head = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/api/jobs/"), 120)
            yield RayLauncher(url=f"http://127.0.0.1:{port}", python=sys.executable)
        finally:
            head.terminate()
            head.wait(timeout=60)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def ended(run: Running) -> int:
    until(lambda: run.poll() is not None, 120)
    code = run.poll()
    assert code is not None
    return code


def test_the_same_recipe_trains_there_unchanged(ray: RayLauncher, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    run = ray.start(training(name="ftjob-ray", recipe=recipe, folder=tmp_path / "run", launch=Launch()))
    again = RayLauncher(url=ray.url).reattach(run.handle)
    assert again is not None
    assert again.folder == tmp_path / "run"
    assert ended(again) == 0, run.logs().read_text()
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert '"event": "finished"' in run.logs().read_text()


def test_what_sits_is_found_by_its_name_and_stopped(ray: RayLauncher, tmp_path: Path) -> None:
    (tmp_path / "sits.py").write_text("import os, time\nprint(os.environ['WORD'], flush=True)\ntime.sleep(120)\n")
    environment = {"PYTHONPATH": str(tmp_path), "WORD": "two words"}
    spec = LaunchSpec(name="ftjob-sits", module="sits", args=(), folder=tmp_path / "run", environment=environment)
    run = ray.start(spec)
    assert ray.start(spec).handle == run.handle
    until(lambda: "two words" in run.logs().read_text(), 60)
    assert run.poll() is None
    run.stop()
    assert ended(run) == -15
    run.stop()


def test_a_code_comes_back(ray: RayLauncher, tmp_path: Path) -> None:
    run = ray.start(LaunchSpec(name="ftjob-none", module="no_such_module", args=(), folder=tmp_path / "run"))
    assert ended(run) == 1
    assert "no_such_module" in run.logs().read_text()
