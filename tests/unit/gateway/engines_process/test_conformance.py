"""The parts of the engine check that need no engine."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from gateway.engines.conformance import broken
from gateway.engines.conformance.__main__ import CHECKS, report
from gateway.engines.conformance.bench import Found, error_of, text_of, told


@pytest.fixture
def good(tmp_path: Path) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    tensors = {
        "m.q_proj.lora_A.weight": np.ones((8, 64), np.float32),
        "m.q_proj.lora_B.weight": np.ones((64, 8), np.float32),
    }
    save_file(tensors, folder / broken.WEIGHTS)
    (folder / broken.CONFIG).write_text(json.dumps({"r": 8, "use_dora": False}))
    return folder


def test_each_behaviour_has_a_line_of_its_own_and_the_mixed_batch_comes_first() -> None:
    names = [check.behaviour for check in CHECKS]
    assert len(set(names)) == len(names)
    assert "base rows in batches" in names[0]


def test_the_table_says_what_changed() -> None:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(report([(CHECKS[0], Found(text="3 of 192 in an adapter's words", ok=False))]))
    shown = captured.get()
    assert CHECKS[0].behaviour in shown
    assert "3 of 192" in shown
    assert "NO" in shown


def test_broken_adapters_differ_from_the_good_one_by_what_their_name_says(good: Path, tmp_path: Path) -> None:
    to = tmp_path / "bad"
    padded = load_file(broken.change(good, to, broken.of_rank(64), r=64) / broken.WEIGHTS)
    assert [t.shape for _, t in sorted(padded.items())] == [(64, 64), (64, 64)]
    assert json.loads((to / broken.CONFIG).read_text())["r"] == 64
    assert list(load_file(broken.change(good, to, broken.without_b) / broken.WEIGHTS)) == ["m.q_proj.lora_A.weight"]
    assert any(t.shape == (8, 72) for t in load_file(broken.change(good, to, broken.wider) / broken.WEIGHTS).values())
    assert any("banana" in n for n in load_file(broken.change(good, to, broken.elsewhere) / broken.WEIGHTS))
    nan = load_file(broken.change(good, to, broken.filled(float("nan"))) / broken.WEIGHTS)
    assert all(np.isnan(t).all() for t in nan.values())
    whole, half = good / broken.WEIGHTS, broken.truncate(good, to) / broken.WEIGHTS
    assert half.stat().st_size == whole.stat().st_size // 2
    assert json.loads((broken.copy(good, to, config={"use_dora": True}) / broken.CONFIG).read_text())["use_dora"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"error":{"type":"x"}}', {"type": "x"}),
        ('{"detail":"no"}', {}),
        ("Internal", {}),
        ("[]", {}),
        ('{"error":1}', {}),
    ],
)
def test_an_error_object_is_read_from_any_body(body: str, error: dict[str, str]) -> None:
    assert error_of(httpx.Response(400, text=body)) == error


def test_an_answer_is_told_in_a_few_words() -> None:
    assert told(httpx.Response(404, text='{"error":{"message":"no\\n such   thing"}}')) == "404 no such thing"
    assert text_of('{"choices":[]}') == ""
    assert text_of('{"choices":[{"delta":{"content":"x"}}]}') == "x"
