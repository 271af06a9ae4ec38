"""What jobs may learn from, and where its rows are when a job reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.data.manifest import FILE, Manifest, Part, canonical
from training.data.values import Kind
from training.files import of_jobs
from training.files.compiled import compiled, rules_for
from training.files.errors import BadTrainingFile
from training.files.intake import Upload, remove, take
from training.files.shelf import Shelf
from training.files.sources import Shelves, serves
from training.files.store import MemoryFiles
from training.files.values import File, Purpose
from training.jobs.errors import JobRefused
from training.jobs.values import Job

NOW = 1_800_000_000.0
SFT = {"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At nine."}]}


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    return Shelves(files=MemoryFiles(), shelf=Shelf(tmp_path / "files"), datasets=tmp_path / "datasets")


def upload(
    shelves: Shelves, *rows: Any, purpose: Purpose = "fine-tune", tenant: str = "acme", expires_s: int | None = None
) -> File:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows or (SFT,))
    said = Upload(filename="rows.jsonl", purpose=purpose, expires_s=expires_s)
    return take(
        shelves.files, shelves.shelf, said, io.BytesIO(data), tenant=tenant, owner="", now=NOW, bytes_max=1 << 20
    )


def dataset(shelves: Shelves, *, kind: Kind = "sft", tenant: str = "", held: int = 3) -> str:
    manifest = Manifest(
        kind=kind,
        origin="records",
        rules={"kind": kind, "tenant": tenant},
        template="",
        base="",
        parts={"train": Part(rows=9, tokens=90, digest="a"), "evaluation": Part(rows=held, tokens=30, digest="b")},
    )
    folder = shelves.datasets / manifest.digest.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(canonical(manifest.document()))
    return manifest.digest


def job(train: str, held: str = "", replay: str = "", *, method: str = "sft", tenant: str = "acme") -> Job:
    data: dict[str, Any] = {"train": train, **({"held": held} if held else {})}
    if replay:
        data["replay"] = {"source": replay, "share": 0.3}
    return Job(id="ftjob-1", tenant=tenant, name="polite", recipe={"name": "polite", "method": method, "data": data})


def document(shelves: Shelves, one: Job) -> Mapping[str, Any]:
    data: Mapping[str, Any] = of_jobs.document(shelves, one, base=Path("base"), base_digest="sha256:b", now=NOW)["data"]
    return data


def test_a_good_file_is_found_with_what_it_holds(shelves: Shelves) -> None:
    file = upload(shelves, SFT, SFT)
    found = shelves.source("acme", file.id, param="training_file", now=NOW)
    assert (found.name, found.kind, found.rows, found.file) == (file.id, "sft", 2, file)
    assert found.path.read_bytes().count(b"\n") == 2


def test_a_dataset_is_found_by_a_beginning_of_its_digest_and_named_whole(shelves: Shelves) -> None:
    digest = dataset(shelves)
    found = shelves.source("acme", digest[:15], param="training_file", now=NOW)
    assert (found.name, found.kind, found.rows, found.held, found.file) == (digest, "sft", 9, 3, None)


def test_what_cannot_be_learnt_from_says_why_and_blames_its_parameter(shelves: Shelves) -> None:
    broken, other = upload(shelves, SFT, {"what": 1}), upload(shelves, tenant="other")
    evals, old = upload(shelves, {"item": {}}, purpose="evals"), upload(shelves, expires_s=3600)
    gone = upload(shelves)
    remove(shelves.files, shelves.shelf, "acme", gone.id)
    theirs = dataset(shelves, tenant="other")
    for name, words in {
        broken.id: "line 2: its fields",
        other.id: "There is no file",
        evals.id: "uploaded for evals",
        old.id: "expired",
        gone.id: "There is no file",
        theirs: "no dataset",
        "sha256:" + "f" * 64: "0 datasets",
        "/etc/passwd": "file-…",
        "tidewell:polite_edits": "file-…",
    }.items():
        with pytest.raises(BadTrainingFile, match=words) as caught:
            shelves.source("acme", name, param="validation_file", now=NOW + 3600)
        assert caught.value.param == "validation_file"


def test_a_tenant_s_own_dataset_is_its_own(shelves: Shelves) -> None:
    digest = dataset(shelves, tenant="acme")
    assert shelves.source("acme", digest, param="training_file", now=NOW).name == digest


def test_rows_serve_the_kinds_that_can_be_made_of_them(shelves: Shelves) -> None:
    file = shelves.source("acme", upload(shelves).id, param="training_file", now=NOW)
    assert serves(file, "rl")
    assert not serves(file, "dpo")
    pairs = shelves.source("acme", dataset(shelves, kind="dpo"), param="training_file", now=NOW)
    assert serves(pairs, "reward")
    assert not serves(pairs, "sft")
    compiled_already = shelves.source("acme", dataset(shelves), param="training_file", now=NOW)
    assert not serves(compiled_already, "rl")


def test_a_job_is_ready_when_all_that_it_names_is_there_and_fits(shelves: Shelves) -> None:
    file = upload(shelves)
    of_jobs.ready(shelves, job(file.id, file.id), now=NOW)
    of_jobs.ready(shelves, job(file.id, replay="tidewell:usual_answers"), now=NOW)
    for wrong, param, words in (
        (job("file-none"), "training_file", "no file"),
        (job(file.id, "file-none"), "validation_file", "no file"),
        (job(file.id, replay="file-none"), "replay", "no file"),
        (job(file.id, method="dpo"), "training_file", "learns from rows for dpo"),
    ):
        with pytest.raises(JobRefused, match=words) as caught:
            of_jobs.ready(shelves, wrong, now=NOW)
        assert caught.value.param == param
        assert caught.value.why == "invalid_training_file"


def test_a_dataset_s_folder_stands_for_both_of_its_splits(shelves: Shelves) -> None:
    digest = dataset(shelves)
    folder = str(shelves.datasets / digest.removeprefix("sha256:"))
    assert document(shelves, job(digest, digest)) == {"train": folder, "held": folder}
    bare = dataset(shelves, held=0)
    whole = str(shelves.datasets / bare.removeprefix("sha256:") / "train.parquet")
    assert document(shelves, job(digest, bare)) == {"train": folder, "held": whole}
    assert document(shelves, job(digest, replay=bare))["replay"]["source"] == str(Path(whole).parent)
    assert document(shelves, job("tidewell:polite_edits")) == {"train": "tidewell:polite_edits"}


def test_few_rows_give_up_more_of_themselves_to_be_measured_by(shelves: Shelves) -> None:
    found = shelves.source("acme", upload(shelves).id, param="training_file", now=NOW)
    shares = [rules_for(replace(found, rows=rows), "sft", seed=1, held=True).evaluation for rows in (10, 120, 1000)]
    assert shares == [0.25, 0.2, 0.1]
    rules = rules_for(found, "sft", seed=1, held=False)
    assert (rules.evaluation, rules.tenant, rules.personal, rules.seed) == (0.0, "acme", "mask", 1)


def test_a_compiled_dataset_is_not_compiled_again(shelves: Shelves, tmp_path: Path) -> None:
    found = shelves.source("acme", dataset(shelves), param="training_file", now=NOW)
    folder = compiled(
        found, "sft", root=tmp_path, base=tmp_path, base_digest="", seed=0, held=True, param="training_file"
    )
    assert folder == found.path


def test_results_become_files_once_the_csv_first(shelves: Shelves, tmp_path: Path) -> None:
    one = job("file-1")
    run = tmp_path / "run"
    run.mkdir()
    (run / "verdict.json").write_text("{}")
    (run / "result.csv").write_text("step,train_loss\n")
    ids = of_jobs.attached(shelves.files, shelves.shelf, one, run, now=NOW)
    assert ids == of_jobs.attached(shelves.files, shelves.shelf, one, run, now=NOW + 9)
    first, second = (shelves.files.get("acme", each) for each in ids)
    assert (first.filename, first.purpose, first.bytes) == ("ftjob-1-results.csv", "fine-tune-results", 16)
    assert second.filename == "ftjob-1-gate.json"
    assert shelves.shelf.path(first).read_text() == "step,train_loss\n"
    assert len(shelves.files.list("acme", purpose="fine-tune-results")) == 2
