"""The artifact folder: complete or absent, read-only, mended, swept."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from adapters.artifacts import Artifacts, digest_folder
from adapters.errors import DigestMismatch, NotFound, TooLarge, Unavailable


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


def folder(tmp_path: Path, **files: str) -> Path:
    made = tmp_path / f"given-{len(list(tmp_path.iterdir()))}"
    made.mkdir()
    for name, text in files.items():
        (made / name).write_text(text)
    return made


def test_what_was_added_is_found_under_its_digest(artifacts: Artifacts, tmp_path: Path) -> None:
    digest = artifacts.add(folder(tmp_path, a="1", b="2"))
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert {path.name: path.read_text() for path in artifacts.path(digest).iterdir()} == {"a": "1", "b": "2"}
    assert artifacts.verify(digest) == artifacts.path(digest)
    assert artifacts.all() == {digest}


def test_the_digest_depends_on_names_and_bytes_and_on_nothing_else(tmp_path: Path) -> None:
    one, same = folder(tmp_path, a="1", b="2"), folder(tmp_path, b="2", a="1")
    assert digest_folder(one) == digest_folder(same)
    others = [folder(tmp_path, a="1", c="2"), folder(tmp_path, a="2", b="1"), folder(tmp_path, a="1")]
    assert len({digest_folder(each) for each in [one, *others]}) == 4


def test_stored_files_are_read_only(artifacts: Artifacts, tmp_path: Path) -> None:
    path = artifacts.path(artifacts.add(folder(tmp_path, a="1")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o555
    assert stat.S_IMODE((path / "a").stat().st_mode) == 0o444


def test_the_same_bytes_are_stored_once(artifacts: Artifacts, tmp_path: Path) -> None:
    digests = {artifacts.add(folder(tmp_path, a="1")) for _ in range(2)}
    assert artifacts.all() == digests
    assert len(list(artifacts.root.iterdir())) == 1


def test_changes_behind_our_back_are_noticed_and_mended_by_adding_again(artifacts: Artifacts, tmp_path: Path) -> None:
    given = folder(tmp_path, a="1", b="2")
    digest = artifacts.add(given)
    path = artifacts.path(digest)
    path.chmod(0o755)
    (path / "a").unlink()
    (path / "a").mkdir()
    (path / "b").chmod(0o644)
    (path / "b").write_text("x")
    (path / "more").write_text("x")
    (path / "deep").mkdir()
    with pytest.raises(DigestMismatch, match="Register the original"):
        artifacts.verify(digest)
    assert artifacts.add(given) == digest
    assert artifacts.verify(digest) == path
    assert {each.name for each in path.iterdir()} == {"a", "b"}


def test_deleting_is_final_and_may_be_repeated(artifacts: Artifacts, tmp_path: Path) -> None:
    digest = artifacts.add(folder(tmp_path, a="1"))
    artifacts.delete(digest)
    artifacts.delete(digest)
    assert artifacts.all() == frozenset()
    assert list(artifacts.root.iterdir()) == []
    with pytest.raises(NotFound, match="Register the adapter"):
        artifacts.path(digest)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc", "md5:" + "0" * 64, "sha256:" + "G" * 64])
def test_only_digests_name_artifacts(digest: str, artifacts: Artifacts) -> None:
    with pytest.raises(NotFound, match="no digest"):
        artifacts.path(digest)


def test_a_staged_copy_that_is_not_committed_leaves_nothing(artifacts: Artifacts, tmp_path: Path) -> None:
    with artifacts.staged(folder(tmp_path, a="1")) as copy:
        assert (copy / "a").read_text() == "1"
        assert artifacts.all() == frozenset()
    assert list(artifacts.root.iterdir()) == []
    assert artifacts.all() == frozenset()


def test_a_copy_stops_at_its_bound(artifacts: Artifacts, tmp_path: Path) -> None:
    given = folder(tmp_path, a="12345", b="12345")
    assert artifacts.add(given, bytes_max=10)
    with pytest.raises(TooLarge, match="bytes"):
        artifacts.add(given, bytes_max=9)


def test_links_and_pipes_are_neither_followed_nor_waited_for(artifacts: Artifacts, tmp_path: Path) -> None:
    with_link, with_pipe = folder(tmp_path), folder(tmp_path, a="1")
    (with_link / "a").symlink_to("/etc/passwd")
    os.mkfifo(with_pipe / "b")
    for given in (with_link, with_pipe):
        with pytest.raises(Unavailable):
            artifacts.add(given)
    assert artifacts.all() == frozenset()


def test_a_folder_in_a_folder_has_no_digest(tmp_path: Path) -> None:
    given = folder(tmp_path)
    (given / "deep").mkdir()
    with pytest.raises(DigestMismatch, match="no plain file"):
        digest_folder(given)


def test_a_store_that_was_never_used_is_empty(artifacts: Artifacts) -> None:
    assert artifacts.all() == frozenset()
    assert artifacts.sweep() == 0


def test_what_a_crash_left_is_swept_when_it_is_old(artifacts: Artifacts, tmp_path: Path) -> None:
    digest = artifacts.add(folder(tmp_path, a="1"))
    for name in (".new-1", ".gone-2"):
        (artifacts.root / name).mkdir(mode=0o555)
    made = (artifacts.root / ".new-1").stat().st_mtime
    assert artifacts.sweep(older_than_s=60, now_s=made + 30) == 0
    assert artifacts.sweep(older_than_s=60, now_s=made + 90) == 2
    assert artifacts.all() == {digest}
    assert len(list(artifacts.root.iterdir())) == 1
