"""The procedures of the runbooks, run as they stand on a whole installation with real vLLM and what is wrong there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.errors import Reason
from adapters.registry import engine_name
from gateway.control import open_control
from gateway.settings import load
from tests.installation import Installation, fresh, registered
from training.base import PATH as BASE

ROOT = Path(__file__).parents[2]
SETTLED_WITHIN_S = 60.0


def procedures() -> dict[str, list[str]]:
    """The commands of each procedure, block by block."""
    text = (ROOT / "deploy/RUNBOOKS.md").read_text().partition("\n# Procedures\n")[2]
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {
        section.partition("\n")[0]: re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        for section in sections
    }


def run(installation: Installation, folder: Path, title: str, numbers: Sequence[int]) -> list[str]:
    """Run blocks of a procedure in one shell, as a reader does who pastes them; returns what each printed."""
    blocks = procedures()[title]
    first = blocks[0].partition("\n")[0]  # the names that all others use
    script = "\n".join(f"echo '====='\n{blocks[number]}" for number in numbers)
    if 0 not in numbers:
        script = f"{first}\n{script}"
    for theirs, ours in (
        ("http://127.0.0.1:8000", installation.url),
        (".graftline/", f"{installation.home}/"),
        (".venv/bin/graftline", f"{sys.executable} -m gateway.cli"),
    ):
        script = script.replace(theirs, ours)
    argv = ["bash", "-euo", "pipefail", "-c", script]
    env = {**installation.env, "COLUMNS": "220"}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, env=env, timeout=300)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    said = done.stdout.split("=====\n")[1:]
    assert len(said) == len(numbers)
    return said


def as_dora(marker: Path, out: Path) -> Path:
    """The same adapter as PEFT would save it if it were DoRA, with the magnitudes that change nothing."""
    import torch
    from safetensors.torch import load_file, save_file

    from training.probe import model as models

    shutil.copytree(marker, out)  # and the folders above it
    config = json.loads((out / "adapter_config.json").read_text())
    tensors = load_file(out / "adapter_model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own, while what unpacks the base is imported
        base, _ = models.load(BASE)
    weights = {name: module.weight.data for name, module in base.named_modules() if "_proj" in name}
    for key in [key for key in tensors if key.endswith("lora_A.weight")]:
        stem = key.removesuffix("lora_A.weight")
        change = config["lora_alpha"] / config["r"] * tensors[f"{stem}lora_B.weight"] @ tensors[key]
        module = stem.removeprefix("base_model.model.").removesuffix(".")
        tensors[f"{stem}lora_magnitude_vector"] = torch.linalg.norm(weights[module].float() + change, dim=1)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    (out / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    return out


def readyz(installation: Installation) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{installation.url}/readyz", trust_env=False).json()
    return found


def answer(installation: Installation, model: str) -> str:
    response = installation.ask(model)
    if response.status_code != 200:
        return response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def test_every_procedure_has_commands_and_every_link_leads_somewhere() -> None:
    text = (ROOT / "deploy/RUNBOOKS.md").read_text()
    assert list(procedures()) == ["A refused adapter", "A replica out of sync", "Roll back"]
    for title, blocks in procedures().items():
        assert len(blocks) >= 3, title
        assert blocks[0].startswith("NAME="), "what a reader puts his own names into comes first"
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^##? (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", text)) <= anchors


def wait(installation: Installation, what: Callable[[], bool]) -> None:
    until = time.monotonic() + SETTLED_WITHIN_S
    while not what():
        assert time.monotonic() < until, (installation.home / "logs" / "worker.log").read_text()[-4000:]
        time.sleep(0.2)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_refused_adapter_says_every_reason_and_serves_once_it_is_converted(
    installation: Installation, markers: Path, tmp_path: Path
) -> None:
    as_dora(fresh(markers, "bravo", tmp_path / "fresh"), tmp_path / "adapters" / "helpdesk-dora")
    looked, converted, again, shown = run(installation, tmp_path, "A refused adapter", range(4))
    assert "use_dora: found True" in looked
    assert "lora_magnitude_vector" in looked
    assert "graftline convert" in looked
    assert "refused, and nothing was stored" in looked
    assert re.search(r"all\s+│ 0\.0\d", converted)
    assert "It would be registered" in again
    assert "helpdesk:1 sha256:" in again
    assert "\nverified" in again
    assert re.search(r"parity\s+│ engine-0\s+│ yes", shown)
    assert answer(installation, "helpdesk") == "Bravo."


@pytest.mark.vllm
@pytest.mark.slow
def test_a_version_that_the_engine_lost_and_cannot_load_is_found_mended_and_back(
    installation: Installation, markers: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapters").mkdir()
    registered(installation, fresh(markers, "alpha", tmp_path / "adapters" / "returns"), "returns")
    control = open_control(load(installation.env))
    version = control.adapters.get("returns", 1)
    weights = control.registry.verify("returns", 1) / "adapter_model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as file:  # somebody wrote there: the digest no longer fits
        file.seek(-4, os.SEEK_END)
        file.write(b"gone")
    engine = httpx.HTTPTransport(uds=str(installation.home / "run" / "engine.sock"))
    with httpx.Client(transport=engine, base_url="http://engine", trust_env=False) as client:
        client.post("/v1/unload_lora_adapter", json={"lora_name": engine_name(version)}).raise_for_status()
    wait(installation, lambda: bool(control.registry.evidence("returns", 1, "load")))
    wait(installation, lambda: engine_name(version) in readyz(installation)["adapters"]["missing"])

    ready, looked, mended, after = run(installation, tmp_path, "A replica out of sync", range(4))
    assert json.loads(ready)["status"] == "degraded"
    assert engine_name(version) in json.loads(ready)["adapters"]["missing"]
    assert "error (digest_mismatch)" in looked
    assert "its files are damaged" in looked
    assert re.search(r"returns:1\s+│ load\s+│ engine-0\s+│ NO\s+│ .*digest_mismatch", looked)
    assert f"returns:1 {version.digest}" in mended
    assert '"missing":[]' in after
    assert "returns:1 is intact" in after
    assert answer(installation, "returns") == "Alpha."


@pytest.mark.vllm
@pytest.mark.slow
def test_rolling_back_works_by_itself_and_by_number_after_a_withdrawal(
    installation: Installation, markers: Path, tmp_path: Path
) -> None:
    for word in ("alpha", "bravo", "charlie"):
        registered(installation, fresh(markers, word, tmp_path / word), "billing")
    installation.cli("adapters", "promote", "billing", "2", "--why", "better tone")
    title = "Roll back"
    (gone_back,) = run(installation, tmp_path, title, [0])
    assert "would point billing@live → 1 (now 2)" in gone_back
    assert "billing@live → 1 (was 2)" in gone_back
    wait(installation, lambda: answer(installation, "billing") == "Alpha.")
    header, retired = run(installation, tmp_path, title, [1, 2])
    assert "billing:1" in header
    assert "billing:2 is retired" in retired

    control = open_control(load(installation.env))
    nan = Reason(code="nan_at_runtime", field="tripwire", found="NaN", allowed="finite logits", advice="Train again.")
    control.registry.withdraw(control.adapters.get("billing", 1), [nan], who="tripwire")
    by_number, audit = run(installation, tmp_path, title, [3, 4])
    assert "error (adapter_not_found)" in by_number
    assert "nothing to go back to" in by_number
    assert re.search(r"3\s+│ verified", by_number)
    assert "billing@live → 3" in by_number
    wait(installation, lambda: answer(installation, "billing") == "Charlie.")
    rows = json.loads(audit)["data"]
    assert (rows[0]["who"], rows[0]["subject"], rows[0]["after"]) == ("cli", "billing@live", "3")
    assert rows[0]["why"] == "version 1 was withdrawn"
    assert ("tripwire", "rejected") in {(row["who"], row["action"]) for row in rows}
    assert {"complaints since noon", "better tone"} <= {row["why"] for row in rows}
