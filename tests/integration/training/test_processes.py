"""Two processes over gloo make the steps of one: the same loss, the same adapter within rounding; and share weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.launchers.command import argv
from training.launchers.values import training
from training.recipes.progress import Event, Failed, Finished, Noted, Stepped, from_fields
from training.recipes.recipe import build

pytest.importorskip("trl")
pytestmark = [pytest.mark.claim, pytest.mark.slow]
SFT: dict[str, Any] = {"method": "sft", "data": {"train": "tidewell:corrected_fact", "rows_max": 32}}
DPO: dict[str, Any] = {"method": "dpo", "data": {"train": "tidewell:polite_choices", "rows_max": 32}}
STEPS = 4
OPTIM = {"learning_rate": 5e-3, "steps": STEPS, "batch": 4, "accumulate": 2, "warmup_steps": 0, "save_every": 2}
#: Sums over processes are made in another order. Seen: below 1e-5.
TOLERANCE = 1e-3


def run(out: Path, how: dict[str, Any], launch: dict[str, Any], **optim: Any) -> list[Event]:
    out.mkdir(exist_ok=True)
    fields = {"name": "two", "optim": {**OPTIM, **optim}, "launch": launch, **how}
    recipe = build(fields)
    (out / "recipe.yaml").write_text(json.dumps(fields))
    spec = training(name="two", recipe=out / "recipe.yaml", folder=out / "run", launch=recipe.launch)
    done = subprocess.run(argv(spec, python=sys.executable), capture_output=True, text=True, timeout=240)
    events = [from_fields(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-3000:] + str([e for e in events if isinstance(e, Failed)])
    return events


def losses(events: list[Event]) -> list[float]:
    found = [event.numbers["loss"] for event in events if isinstance(event, Stepped)]
    assert len(found) == STEPS
    assert sum(isinstance(event, Finished) for event in events) == 1, "one of them speaks"
    return found


def weights(out: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(out / "run" / "adapter" / "adapter_model.safetensors"))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[float], dict[str, Any]]]:
    found = {}
    for name, how in (("sft", SFT), ("dpo", DPO)):
        out = tmp_path_factory.mktemp(name)
        found[name] = (losses(run(out, how, {})), weights(out))
    return found


@pytest.mark.parametrize(
    ("name", "launch"),
    [
        ("sft", {"processes": 2}),
        ("dpo", {"processes": 2}),
        ("sft", {"processes": 2, "sharding": "fsdp"}),
        ("dpo", {"processes": 2, "sharding": "fsdp"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("sharding", "whole"),
)
def test_two_processes_train_what_one_would(
    name: str, launch: dict[str, Any], one: dict[str, tuple[list[float], dict[str, Any]]], tmp_path: Path
) -> None:
    import numpy as np

    events = run(tmp_path, SFT if name == "sft" else DPO, launch)
    expected, adapter = one[name]
    assert losses(events) == pytest.approx(expected, rel=TOLERANCE)
    mine = weights(tmp_path)
    assert mine.keys() == adapter.keys()
    apart = max(float(np.abs(mine[part] - adapter[part]).max()) for part in mine)
    assert apart < TOLERANCE
    shares = [event.text for event in events if isinstance(event, Noted) and event.what == "sharded"]
    assert len(shares) == ("sharding" in launch)
    if shares:
        here, whole = (float(word) for word in shares[0].split() if word[0].isdigit() and "." in word)
        assert here == pytest.approx(whole / 2, rel=0.02)


@pytest.mark.parametrize("launch", [{"processes": 2}, {"processes": 2, "sharding": "fsdp"}], ids=["whole", "fsdp"])
def test_a_run_of_two_that_was_killed_goes_on_from_its_checkpoint(
    launch: dict[str, Any], one: dict[str, tuple[list[float], dict[str, Any]]], tmp_path: Path
) -> None:
    import shutil

    run(tmp_path, SFT, launch)
    before = weights(tmp_path)
    folder = tmp_path / "run"
    for gone in (folder / "adapter", folder / "checkpoints" / f"checkpoint-{STEPS}"):
        shutil.rmtree(gone)
    events = run(tmp_path, SFT, launch)
    assert [event.step for event in events if isinstance(event, Stepped)] == [3, 4]
    after = weights(tmp_path)
    assert all((before[part] == after[part]).all() for part in before)


def test_a_step_that_cannot_be_shared_is_refused_once(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="cannot share evenly"):
        run(tmp_path, SFT, {"processes": 2}, batch=3, accumulate=1)
