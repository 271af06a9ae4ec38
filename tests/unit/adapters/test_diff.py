"""What changed between two versions, compared with updates that are formed in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.diff import ModuleChange, difference

Q = "model.layers.0.self_attn.q_proj"
V = "model.layers.0.self_attn.v_proj"
Pair = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def adapter(folder: Path, pairs: dict[str, Pair], *, rank: int = 4, **config: Any) -> Path:
    folder.mkdir()
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def pair(seed: int, rank: int = 4, inputs: int = 12, outputs: int = 20) -> Pair:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rank, inputs)).astype(np.float32), rng.normal(size=(outputs, rank)).astype(np.float32)


def of(found: tuple[ModuleChange, ...], module: str) -> ModuleChange:
    return next(change for change in found if change.module == module)


def test_norms_and_angles_are_those_of_the_updates_formed_in_full(tmp_path: Path) -> None:
    old, new = pair(1), pair(2, rank=6)
    found = difference(
        adapter(tmp_path / "a", {Q: old}),
        adapter(tmp_path / "b", {Q: new}, rank=6, lora_alpha=3, use_rslora=True),
    )
    before = 8 / 4 * old[1].astype(float) @ old[0].astype(float)
    after = 3 / np.sqrt(6) * new[1].astype(float) @ new[0].astype(float)
    change = of(found.modules, Q)
    assert change.norm_before == pytest.approx(np.linalg.norm(before))
    assert change.norm_after == pytest.approx(np.linalg.norm(after))
    larger = max(np.linalg.norm(before), np.linalg.norm(after))
    assert change.change == pytest.approx(np.linalg.norm(after - before) / larger)
    assert change.cosine == pytest.approx(np.sum(before * after) / np.linalg.norm(before) / np.linalg.norm(after))
    assert change.kind == "changed"


def test_the_same_bytes_differ_in_nothing(tmp_path: Path) -> None:
    found = difference(adapter(tmp_path / "a", {Q: pair(1)}), adapter(tmp_path / "b", {Q: pair(1)}))
    assert (found.config, found.carried) == ((), ())
    assert [(m.kind, m.change) for m in found.modules] == [("same", 0.0)]
    assert found.modules[0].cosine == pytest.approx(1)


def test_the_same_update_in_other_factors_is_the_same_update(tmp_path: Path) -> None:
    a, b = pair(1)
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0].astype(np.float32)
    found = difference(adapter(tmp_path / "a", {Q: (a, b)}), adapter(tmp_path / "b", {Q: (turned @ a, b @ turned.T)}))
    assert found.modules[0].change < 1e-5
    assert found.modules[0].cosine == pytest.approx(1)


def test_an_update_that_is_turned_round_is_the_largest_change(tmp_path: Path) -> None:
    a, b = pair(1)
    found = difference(
        adapter(tmp_path / "a", {Q: (a, b), V: pair(5)}), adapter(tmp_path / "b", {Q: (a, -b), V: pair(5)})
    )
    assert [m.module for m in found.modules] == [Q, V]
    assert found.modules[0].change == pytest.approx(2)
    assert found.modules[0].cosine == pytest.approx(-1)


def test_modules_that_only_one_side_adapts_and_modules_of_another_shape(tmp_path: Path) -> None:
    k = Q.replace("q_proj", "k_proj")
    found = difference(
        adapter(tmp_path / "a", {Q: pair(1), V: pair(2)}), adapter(tmp_path / "b", {Q: pair(1, inputs=13), k: pair(3)})
    )
    assert {m.module: (m.kind, m.change, m.cosine) for m in found.modules} == {
        Q: ("reshaped", 1.0, 0.0),
        V: ("removed", 1.0, 0.0),
        k: ("added", 1.0, 0.0),
    }
    assert of(found.modules, V).norm_after == 0


def test_an_update_of_nothing_but_zeros_has_no_angle(tmp_path: Path) -> None:
    a, b = pair(1)
    found = difference(adapter(tmp_path / "a", {Q: (a, b * 0)}), adapter(tmp_path / "b", {Q: (a, b)}))
    assert (found.modules[0].change, found.modules[0].cosine) == (1.0, 0.0)
    same = difference(tmp_path / "a", tmp_path / "a")
    assert (same.modules[0].change, same.modules[0].kind) == (0.0, "same")


def test_config_and_carried_values_that_differ_are_named(tmp_path: Path) -> None:
    one = adapter(tmp_path / "a", {Q: pair(1)}, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
    two = adapter(tmp_path / "b", {Q: pair(1)}, target_modules=["v_proj", "q_proj"], revision="abc")
    (one / "graftline.json").write_text('{"system": "a", "sampling": {"top_p": 0.5, "seed": 1}}')
    (two / "graftline.json").write_text('{"sampling": {"top_p": 0.6, "seed": 1}, "stop": ["x"]}')
    found = difference(one, two)
    assert [(c.field, c.before, c.after) for c in found.config] == [
        ("lora_dropout", 0.1, None),
        ("revision", None, "abc"),
    ]
    assert [(c.field, c.before, c.after) for c in found.carried] == [
        ("graftline.json: stop", None, ["x"]),
        ("graftline.json: system", "a", None),
        ("graftline.json: top_p", 0.5, 0.6),
    ]
    json.dumps(found.document(), allow_nan=False)
