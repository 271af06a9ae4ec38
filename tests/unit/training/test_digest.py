"""A folder's digest names its content."""

from pathlib import Path

from training.base.digest import folder_digest


def test_the_digest_follows_names_and_bytes_but_not_the_card(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_text("2")
    first = folder_digest(tmp_path)
    (tmp_path / "card.json").write_text("scores")
    assert folder_digest(tmp_path) == first
    assert first.startswith("sha256:")
    (tmp_path / "a.json").write_text("3")
    changed = folder_digest(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "c.json")
    assert len({first, changed, folder_digest(tmp_path)}) == 3
