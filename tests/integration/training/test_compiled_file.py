"""An uploaded file as a dataset, by the process that a job compiles it with."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from training.base import PATH
from training.base.digest import folder_digest
from training.base.feedback import corrected_fact
from training.data.parquet import load, rows
from training.files import of_jobs
from training.files.intake import Upload, take
from training.files.shelf import Shelf
from training.files.sources import Shelves
from training.files.store import MemoryFiles
from training.jobs.errors import JobRefused
from training.jobs.values import Job
from training.recipes.recipe import build

pytestmark = pytest.mark.slow
NOW = 1_800_000_000.0


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    return Shelves(files=MemoryFiles(), shelf=Shelf(tmp_path / "files"), datasets=tmp_path / "datasets")


def upload(shelves: Shelves, *lines: Any) -> str:
    data = io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    said = Upload(filename="mine.jsonl", purpose="fine-tune")
    return take(shelves.files, shelves.shelf, said, data, tenant="acme", owner="", now=NOW, bytes_max=1 << 30).id


def document(shelves: Shelves, train: str, held: str, *, method: str = "sft") -> dict[str, Any]:
    recipe = {"name": "polite", "method": method, "data": {"train": train, "held": held}}
    job = Job(id="ftjob-1", tenant="acme", name="polite", recipe=recipe, seed=3)
    found = of_jobs.document(shelves, job, base=PATH, base_digest=folder_digest(PATH), now=NOW)
    build(found)
    data: dict[str, Any] = found["data"]
    return data


def said(prompt: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def edits(count: int, seed: int) -> list[dict[str, Any]]:
    return [said(each.prompt[-1]["content"], each.completion) for each in corrected_fact(count, seed=seed)]


def test_a_file_s_rows_are_split_masked_and_found_again(shelves: Shelves) -> None:
    lines = [*edits(120, 100), said("Who writes?", "Write to ann@example.com, please.")]
    file = upload(shelves, *lines)
    data = document(shelves, file, file)
    assert data["train"] == data["held"]
    folder = Path(data["train"])
    manifest = load(folder, verify=True)
    train, held = manifest.parts["train"].rows, manifest.parts["evaluation"].rows
    assert held >= 20
    assert not any(manifest.leaks.values())
    assert manifest.kind == "sft"
    assert manifest.rules["tenant"] == "acme"
    asked = {row["prompt"][-1]["content"] for split in ("train", "evaluation") for row in rows(folder, split)}
    assert asked <= {line["messages"][0]["content"] for line in lines}
    assert train + held + manifest.left.get("leaked", 0) == len(lines)
    (masked,) = [
        row for split in ("train", "evaluation") for row in rows(folder, split) if "[EMAIL]" in str(row["completion"])
    ]
    assert 0 in masked["completion_mask"][-12:]
    assert document(shelves, file, file) == data


def test_a_file_to_evaluate_by_is_read_whole(shelves: Shelves) -> None:
    data = document(shelves, upload(shelves, *edits(40, 100)), upload(shelves, *edits(30, 101)))
    held = Path(data["held"])
    assert held.name == "train.parquet"
    assert load(held.parent).parts["evaluation"].rows == 0
    assert load(Path(data["train"])).parts["evaluation"].rows == 0
    assert held.parent != Path(data["train"])


def test_rows_too_few_to_give_any_up_are_all_learnt_from(shelves: Shelves) -> None:
    file = upload(shelves, said("When?", "At nine."))
    data = document(shelves, file, file)
    assert "held" not in data
    assert load(Path(data["train"])).parts["train"].rows == 1


def test_what_leaves_nothing_to_learn_is_refused_under_the_client_s_name(shelves: Shelves) -> None:
    file = upload(shelves, *({"prompt": f"q{n}", "completion": "a", "label": True} for n in range(5)))
    with pytest.raises(JobRefused, match="All rows are good answers") as caught:
        document(shelves, file, file, method="kto")
    assert caught.value.param == "training_file"
    assert caught.value.why == "invalid_training_file"
    assert ".new-" not in str(caught.value)
