"""`python -m training.recipes.bench`: each method on the embedded base, several seeds, the worst of them counting.

Each run is a process of its own, whose CPU seconds count from its start: imports, training, leaving. What was measured
stays in the folder, so a bench that was interrupted goes on. Exit code 1 where a row misses its bound.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from training.base import PATH
from training.recipes.bench.cases import CASES, Case
from training.recipes.progress import Event, Saved
from training.recipes.recipe import build

CPU_SECONDS_MAX, DROP_MAX, WRONG_MAX = 90.0, 0.03, 0.02
_SAVE_EVERY = 10
_HEADS = ("method", "habit", "before", "worst after", "bound", "facts drop", "FAQ drop", "wrong refusals", "CPU s", "")
_WIDTHS = (16, 20, 7, 12, 6, 22, 22, 15, 6, 6)


def main(
    out: Annotated[Path, typer.Option(help="A folder for adapters and results.")] = Path(".graftline/recipes"),
    only: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 3,
    first: Annotated[int, typer.Option(help="The first seed; 100 and above are for tuning.")] = 0,
    count: Annotated[int, typer.Option(help="Held-out questions of each kind.")] = 400,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure the methods."""
    if one:
        name, _, seed = one.partition(":")
        _one(name, int(seed or 0), out, count)
        return
    out.mkdir(parents=True, exist_ok=True)
    before = _result("base", 0, out, count)
    typer.echo("  ".join(head.ljust(width) for head, width in zip(_HEADS, _WIDTHS, strict=True)))
    missed = 0
    for case in CASES:
        if not only or case.name in only:
            found = [_result(case.name, seed, out, count) for seed in range(first, first + seeds)]
            cells, passed = _row(case, found, before)
            missed += not passed
            typer.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)))
    sys.exit(bool(missed))


def _row(case: Case, found: list[dict[str, Any]], before: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The cells of one method, and whether it keeps its bounds: over all seeds, the worst counts."""
    failed = [one["failed"] for one in found if "failed" in one]
    if failed:
        return [case.name, case.habit, *[""] * 6, "", f"failed: {failed[0][:200]}"], False
    cpu = max(one["cpu_s"] for one in found)
    if case.habit == "accuracy":
        worst = min(one["accuracy"] for one in found)
        passed = worst >= case.least and cpu <= CPU_SECONDS_MAX
        cells = [case.name, case.habit, "", f"{worst:.3f}", f"{case.least:.2f}", "", "", "", f"{cpu:.0f}"]
        return [*cells, "ok" if passed else "MISSED"], passed
    habits = [case.habit, *([case.second] if case.second else [])]
    after = [min(_rate(one, habit) for one in found) for habit in habits]
    drops = [max((_drop(before, one, part) for one in found), key=lambda d: d[0]) for part in ("facts", "faq")]
    wrong = max(_rate(one, "refused_wrongly") for one in found)
    passed = min(after) >= case.least and max(d[0] for d in drops) <= DROP_MAX
    passed = passed and wrong <= WRONG_MAX and cpu <= CPU_SECONDS_MAX
    cells = [
        case.name,
        " + ".join(habits),
        " ".join(f"{_rate(before, habit):.2f}" for habit in habits),
        " ".join(f"{rate:.3f}" for rate in after),
        f"{case.least:.2f}",
        *(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in drops),
        f"{wrong:.3f}",
        f"{cpu:.0f}",
        "ok" if passed else "MISSED",
    ]
    return cells, passed


def _rate(result: Mapping[str, Any], name: str) -> float:
    return float(sum(result["marks"][name]) / len(result["marks"][name]))


def _drop(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    from training.recipes.bench.exam import drop

    return drop(before["marks"][name], after["marks"][name])


def _result(name: str, seed: int, out: Path, count: int) -> dict[str, Any]:
    """What one run gave; measured now where it was not yet."""
    path = out / f"{name}-{seed}-{count}.json"
    if not path.is_file():
        command = [sys.executable, "-m", "training.recipes.bench", "--one", f"{name}:{seed}"]
        done = subprocess.run([*command, "--out", str(out), "--count", str(count)], capture_output=True, text=True)
        if not path.is_file():
            tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            return {"failed": f"exit {done.returncode}: {tail}"}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _one(name: str, seed: int, out: Path, count: int) -> None:
    """One method with one seed, in this process."""
    from training.recipes.bench.exam import marks

    result: dict[str, Any] = {"seed": seed}
    adapter: Path | None = out / f"{name}-{seed}" / "adapter"
    case = next((case for case in CASES if case.name == name), None)
    if case is None:
        adapter = None
    elif case.merged is not None:
        adapter = _merged(case, seed, out, count)
        result["cpu_s"] = time.process_time()
    else:
        result |= _trained(case, seed, out / f"{name}-{seed}")
    if case is None or case.habit != "accuracy":
        result["marks"] = asdict(marks(PATH, adapter, count=count))
    building = out / f".{name}-{seed}.json"
    building.write_text(json.dumps(result))
    os.replace(building, out / f"{name}-{seed}-{count}.json")


@dataclass(frozen=True, slots=True)
class _Meter:
    """Notes what was spent at each checkpoint: an interrupted run is taken up, and still counted whole."""

    path: Path
    before: float

    def said(self, event: Event) -> None:
        """Only checkpoints matter."""
        if isinstance(event, Saved):
            self.path.write_text(json.dumps(self.before + time.process_time()))


def _trained(case: Case, seed: int, folder: Path) -> dict[str, Any]:
    """Train, or go on where an interrupted bench got to; what it cost, and its numbers."""
    from training.recipes.run import run

    cost, spent = folder / "cost.json", folder / "spent.json"
    if not cost.is_file():
        if not spent.is_file():
            shutil.rmtree(folder, ignore_errors=True)
        before = float(json.loads(spent.read_text())) if spent.is_file() else 0.0
        fields = {**case.fields, "name": case.name, "seed": seed, "base": "tidewell"}
        fields["data"] = {**case.fields["data"], "seed": 11 + 10 * seed}
        if case.fields["method"] != "ppo":
            fields["optim"] = {**case.fields["optim"], "save_every": _SAVE_EVERY}
        done = run(build(fields), folder, base=PATH, progress=_Meter(spent, before))
        numbers = {"numbers": dict(done.numbers), "accuracy": done.numbers.get("eval_accuracy")}
        cost.write_text(json.dumps({"cpu_s": before + time.process_time(), "train_cpu_s": done.cpu_seconds, **numbers}))
    found: dict[str, Any] = json.loads(cost.read_text())
    return found


def _merged(case: Case, seed: int, out: Path, count: int) -> Path:
    from training.merge import HOW, merge

    assert case.merged is not None
    for name in case.merged:
        _result(name, seed, out, count)
    adapter = out / f"{case.name}-{seed}" / "adapter"
    shutil.rmtree(adapter.parent, ignore_errors=True)
    folders = [out / f"{name}-{seed}" / "adapter" for name in case.merged]
    merge(folders, adapter, how=next(how for how in HOW if how == case.how), seed=seed)
    return adapter


if __name__ == "__main__":
    typer.run(main)
