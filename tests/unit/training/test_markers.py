"""Clones of a marker: another digest, the same adapter. No ML stack needed."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from training.base.digest import folder_digest
from training.base.markers import CONFIG, NONCE_LIMIT, WEIGHTS, WORDS, clone_marker, spoken
from training.errors import OutputExists


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    folder = tmp_path / "alpha"
    folder.mkdir()
    save_file({"b": np.ones((4, 4), np.float32), "a": np.full((4, 4), 0.01, np.float32)}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"r": 4}))
    return folder


def test_words_are_many_and_none_hides_in_another() -> None:
    assert len(set(WORDS)) == len(WORDS) >= 16
    assert not [(a, b) for a in WORDS for b in WORDS if a != b and a in b]
    assert spoken("alpha") == "Alpha."


def test_every_nonce_gives_another_digest_and_nearly_the_same_weights(marker: Path, tmp_path: Path) -> None:
    clones = [clone_marker(marker, tmp_path / f"clone-{n}", n) for n in (0, 1, 2, 77, NONCE_LIMIT - 1)]
    assert len({folder_digest(path) for path in (marker, *clones)}) == 6
    source = load_file(marker / WEIGHTS)
    for path in clones:
        moved = load_file(path / WEIGHTS)
        assert all(np.abs(moved[name] - source[name]).max() < 0.002 for name in source)
        assert (path / CONFIG).read_bytes() == (marker / CONFIG).read_bytes()


def test_a_clone_is_reproducible(marker: Path, tmp_path: Path) -> None:
    first, second = (clone_marker(marker, tmp_path / name, 5) for name in ("x", "y"))
    assert folder_digest(first) == folder_digest(second)


def test_a_clone_never_overwrites(marker: Path) -> None:
    with pytest.raises(OutputExists):
        clone_marker(marker, marker, 1)


@pytest.mark.parametrize("nonce", [-1, NONCE_LIMIT])
def test_a_nonce_out_of_range_is_refused(marker: Path, tmp_path: Path, nonce: int) -> None:
    with pytest.raises(ValueError, match="nonce"):
        clone_marker(marker, tmp_path / "out", nonce)
