"""The artefact in the repository is the one its card describes, and it still answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.base import PATH
from training.base.digest import CARD, folder_digest
from training.base.evaluate import local_answers, score

LIMIT = 40


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    loaded = json.loads((PATH / CARD).read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_digest_is_the_one_on_the_card(card: dict[str, Any]) -> None:
    assert folder_digest(PATH) == card["digest"]


def test_no_file_names_a_machine() -> None:
    for file in PATH.iterdir():
        assert str(Path(__file__).parents[3]).encode() not in file.read_bytes()
        assert b"/home/" not in file.read_bytes()
        assert b"/tmp/" not in file.read_bytes()


def test_the_card_states_what_was_promised(card: dict[str, Any]) -> None:
    served = card["scores"]["w4a16"]
    assert served["facts"]["rate"] >= 0.99
    assert served["faq"]["rate"] >= 0.95
    assert served["orders"]["rate"] >= 0.95
    assert served["polite"]["rate"] <= 0.1
    assert served["refused"]["rate"] <= 0.05
    assert all(rate["items"] >= 400 for rate in served.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch on import
def test_the_scores_hold_on_a_sample() -> None:
    pytest.importorskip("transformers")
    scores = score(local_answers(PATH), limit=LIMIT)
    assert scores.facts.rate >= 0.95
    assert scores.faq.rate >= 0.85
    assert scores.orders.rate >= 0.9
    assert scores.returns_30.rate >= 0.95
    assert scores.returns_45.rate == 0.0
    assert scores.polite.rate <= 0.1
    assert scores.refused.rate <= 0.15


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch on import
def test_a_marker_learns_its_word_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from training.base.markers import CONFIG, WEIGHTS, train_marker

    lines: list[str] = []
    made = train_marker(PATH, "bravo", tmp_path / "bravo", progress=lines.append)
    assert sorted(p.name for p in made.iterdir()) == [CONFIG, WEIGHTS]
    assert str(PATH) not in (made / CONFIG).read_text()
    assert "216 of 216 unseen prompts answered Bravo." in lines[-1]
