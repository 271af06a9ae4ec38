"""Uploads: what is kept, what their lines hold, and what is left behind when something fails."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from training.files.errors import BadUpload, FileNotFound, FilesNotKept, FilesUnavailable, NoRoom
from training.files.intake import Upload, keep, remove, said, take, tidy
from training.files.shelf import YOUNG_S, Shelf
from training.files.store import MemoryFiles
from training.files.values import File, Purpose

NOW = 1_800_000_000.0
GOOD = {"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At nine."}]}


class Away(MemoryFiles):
    """A database that keeps nothing."""

    def add(self, file: File) -> File:
        raise FilesUnavailable("away")


def lines(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "files")


@pytest.fixture
def files() -> MemoryFiles:
    return MemoryFiles()


def kept(
    files: MemoryFiles,
    shelf: Shelf,
    data: bytes,
    *,
    name: str = "rows.jsonl",
    purpose: Purpose = "fine-tune",
    expires_s: int | None = None,
    bytes_max: int = 1 << 20,
) -> File:
    upload = Upload(filename=name, purpose=purpose, expires_s=expires_s)
    source = io.BytesIO(data)
    return take(files, shelf, upload, source, tenant="acme", owner="acme/ann", now=NOW, bytes_max=bytes_max)


def test_a_good_file_is_processed_and_says_what_it_holds(files: MemoryFiles, shelf: Shelf) -> None:
    data = lines(GOOD, GOOD)
    found = kept(files, shelf, data)
    assert (found.state, found.kind, found.rows, found.bytes) == ("processed", "sft", 2, len(data))
    assert files.get("acme", found.id) == found
    path = shelf.path(found)
    assert path.read_bytes() == data
    assert path.suffix == ".jsonl"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "dpo"),
        ({"prompt": "a", "completion": "b", "label": True}, "kto"),
        (
            {
                "input": {"messages": [{"role": "user", "content": "a"}]},
                "preferred_output": [{"role": "assistant", "content": "b"}],
                "non_preferred_output": [{"role": "assistant", "content": "c"}],
            },
            "dpo",
        ),
        ({"messages": [{"role": "user", "content": "a"}], "reference_answer": "b"}, "rl"),
        ({"text": "a"}, "text"),
    ],
)
def test_what_rows_are_for_is_seen(files: MemoryFiles, shelf: Shelf, row: Any, kind: str) -> None:
    assert kept(files, shelf, lines(row)).kind == kind


def test_bad_lines_are_named_by_number_under_the_client_s_name(files: MemoryFiles, shelf: Shelf) -> None:
    found = kept(files, shelf, lines(GOOD, b"{\n", GOOD, {"what": 1}), name="mine.jsonl")
    assert found.state == "error"
    assert found.details.startswith("mine.jsonl has 2 problems:")
    assert "line 2: not JSON" in found.details
    assert "line 4: its fields are of no known format" in found.details
    assert files.get("acme", found.id) == found


def test_rows_of_two_kinds_do_not_make_a_file_to_learn_from(files: MemoryFiles, shelf: Shelf) -> None:
    found = kept(files, shelf, lines(GOOD, {"prompt": "a", "chosen": "b", "rejected": "c"}))
    assert found.state == "error"
    assert "line 2: a row for dpo, in a dataset for sft" in found.details


def test_rows_to_evaluate_by_may_have_any_fields(files: MemoryFiles, shelf: Shelf) -> None:
    found = kept(files, shelf, lines({"item": {"q": 1}}, {"item": {}}), purpose="evals")
    assert (found.state, found.kind, found.rows) == ("processed", None, 2)
    broken = kept(files, shelf, lines({"item": {}}, b"[]\n"), purpose="evals")
    assert broken.state == "error"
    assert "line 2: not an object" in broken.details


def test_files_of_no_rows_are_kept_as_they_are(files: MemoryFiles, shelf: Shelf) -> None:
    found = kept(files, shelf, b"\x00\x01", name="picture", purpose="user_data")
    assert (found.state, found.rows) == ("processed", 0)
    assert shelf.path(found).read_bytes() == b"\x00\x01"


def test_a_name_without_a_known_ending_is_taken_for_json_lines(files: MemoryFiles, shelf: Shelf) -> None:
    assert kept(files, shelf, lines(GOOD), name="upload").state == "processed"
    assert kept(files, shelf, b"prompt,completion\na,b\n", name="rows.CSV").rows == 1


def test_nothing_is_left_of_what_was_refused(files: MemoryFiles, shelf: Shelf) -> None:
    with pytest.raises(BadUpload, match="empty"):
        kept(files, shelf, b"")
    kept(files, shelf, lines(GOOD))
    with pytest.raises(NoRoom, match="Delete some"):
        kept(files, shelf, lines(GOOD), bytes_max=len(lines(GOOD)) + 1)
    assert len(list(shelf.root.iterdir())) == len(files.list("acme")) == 1


def test_nothing_is_left_when_the_database_refuses(shelf: Shelf) -> None:
    with pytest.raises(FilesUnavailable):
        kept(Away(), shelf, lines(GOOD))
    assert list(shelf.root.iterdir()) == []


def test_a_disk_that_refuses_is_told_in_our_words(files: MemoryFiles, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FilesNotKept, match="send it again") as caught:
        kept(files, Shelf(tmp_path / "taken"), lines(GOOD))
    assert caught.value.retryable
    assert files.list("acme") == ()


def test_a_removed_file_is_gone_with_its_bytes(files: MemoryFiles, shelf: Shelf) -> None:
    found = kept(files, shelf, lines(GOOD))
    assert remove(files, shelf, "acme", found.id) == found
    assert list(shelf.root.iterdir()) == []
    with pytest.raises(FileNotFound):
        shelf.path(found)
    with pytest.raises(FileNotFound):
        remove(files, shelf, "acme", found.id)


def test_what_was_made_here_is_kept_once(files: MemoryFiles, shelf: Shelf) -> None:
    made = File(
        id="file-1", tenant="acme", created_at=NOW, filename="r.csv", purpose="fine-tune-results", bytes=0, digest=""
    )
    first = keep(files, shelf, made, io.BytesIO(b"step\n"))
    assert (first.bytes, first.filename) == (5, "r.csv")
    assert keep(files, shelf, made, io.BytesIO(b"step\n")) == first


def test_tidying_takes_what_has_expired_and_what_a_crash_left(files: MemoryFiles, shelf: Shelf) -> None:
    stays, goes = kept(files, shelf, lines(GOOD)), kept(files, shelf, lines(GOOD), expires_s=3600)
    for name, age_s in (("file-lost.jsonl", 2 * YOUNG_S), (".new-left", 2 * YOUNG_S), (".new-now", 0.0)):
        path = shelf.root / name
        path.write_bytes(b"x")
        os.utime(path, (NOW - age_s, NOW - age_s))
    assert tidy(files, shelf, now=NOW) == 2
    assert files.list("acme", newest_first=False) == tuple(sorted((stays, goes), key=lambda each: each.id))
    assert tidy(files, shelf, now=NOW + 3600) == 1
    assert files.list("acme") == (stays,)
    assert shelf.path(stays).is_file()
    assert not (shelf.root / goes.stored).exists()


def test_what_comes_with_an_upload_is_read() -> None:
    fields = {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    assert said("C:\\data\\süß.jsonl", fields) == Upload(filename="süß.jsonl", purpose="fine-tune", expires_s=3600)
    assert said("../../etc/passwd", {"purpose": "evals"}).filename == "passwd"
    assert said(None, {"purpose": "evals"}).filename == "upload.jsonl"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "purpose", "'none'"),
        ({"purpose": "batch"}, "purpose", "nothing here reads such files"),
        ({"purpose": "fine-tune-results"}, "purpose", "only this program makes those"),
        ({"purpose": "evals", "colour": "red"}, "colour", "Unknown parts"),
        ({"purpose": "evals", "expires_after[seconds]": "3600"}, "expires_after[anchor]", "created_at"),
        (
            {"purpose": "evals", "expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "expires_after[seconds]",
            "3600 to 2592000",
        ),
        (
            {"purpose": "evals", "expires_after[anchor]": "created_at", "expires_after[seconds]": "-1"},
            "expires_after[seconds]",
            "'-1'",
        ),
    ],
)
def test_what_cannot_be_said_of_an_upload(fields: dict[str, str], param: str, words: str) -> None:
    with pytest.raises(BadUpload) as caught:
        said("rows.jsonl", fields)
    assert caught.value.param == param
    assert words in str(caught.value)


def test_a_name_that_cannot_be_shown_is_refused() -> None:
    with pytest.raises(BadUpload):
        said("a\nb", {"purpose": "evals"})
    with pytest.raises(BadUpload):
        said("x" * 256, {"purpose": "evals"})
