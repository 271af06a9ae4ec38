"""Finished runs written by hand, and a registry for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.artifacts import Artifacts
from adapters.checks.modules import BaseModules
from adapters.registry import Registry
from adapters.store import MemoryStore
from tests.unit.adapters.conftest import Specimens

ROWS = [{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}]
RECORDED: Mapping[str, Any] = {
    "prompts": [[1, 2, 3]],
    "logprobs": [[-1.0, -2.0]],
    "base_logprobs": [[-1.5, -2.0]],
    "effect": 0.5,
    "seconds": 0.1,
    "by": "trainer",
}


class House:
    """A registry over the store in memory, and a run's folder to publish from."""

    def __init__(self, root: Path, *, probing: bool = True) -> None:
        self.root = root
        self.specimens = Specimens(root)
        self.store = MemoryStore(clock=lambda: 1.0)
        modules = BaseModules.read(self.specimens.base())
        self.registry = Registry(
            self.store, Artifacts(root / "artifacts"), modules, "sha256:base", probing=probing, clock=lambda: 1.0
        )

    def run(self, name: str = "run", **changed: Any) -> Path:
        """A finished run; `changed` are keys of its run.json."""
        folder = self.root / name
        folder.mkdir()
        rows = self.root / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        made = self.specimens.adapter(files={"optimizer.pt": b"pickle"})
        shutil.copytree(made, folder / "adapter")
        (folder / "run.json").write_text(json.dumps(record(rows) | changed))
        tell(folder, steps(falling(40)))
        (folder / "parity.json").write_text(json.dumps({**RECORDED, "trained": None}))
        return folder


def record(rows: Path) -> dict[str, Any]:
    """What training.recipes.run writes of itself."""
    return {
        "recipe": {
            "name": "polite",
            "method": "dpo",
            "base": "served",
            "start_from": "base",
            "seed": 7,
            "data": {"train": str(rows), "held": None, "replay": {"source": "tidewell:usual", "share": 0.3}},
            "gate": {},
        },
        "chosen": {"method": "dpo", "learning_rate": 1e-3, "steps": 40, "rank": 8, "memory": {"weights": 1}},
        "reasons": [],
        "numbers": {"loss_last": 0.5, "eval_runtime": 3.25},
        "generation": 1,
        "start": None,
        "base": {"name": "tidewell", "digest": "sha256:b"},
        "template": "t",
        "rows": {"count": 1, "sha256": "r"},
        "versions": {"torch": "2.13.0"},
        "seconds": 12.5,
        "cpu_seconds": 20.0,
    }


def falling(count: int, *, first: float = 3.0, last: float = 0.5, noise: float = 0.01) -> list[float]:
    """A loss that falls and settles."""
    return [last + (first - last) * 0.8**at + noise * (-1) ** at for at in range(count)]


def steps(losses: Sequence[float], name: str = "loss", **more: float) -> list[dict[str, Any]]:
    return [
        {"event": "stepped", "step": at, "steps": len(losses), "numbers": {name: loss, **more}}
        for at, loss in enumerate(losses, start=1)
    ]


def evaluated(losses: Mapping[int, float]) -> list[dict[str, Any]]:
    return [{"event": "evaluated", "step": at, "numbers": {"eval_loss": loss}} for at, loss in losses.items()]


def tell(folder: Path, *lines: Sequence[Mapping[str, Any]]) -> Path:
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for part in lines for line in part)
    return folder
