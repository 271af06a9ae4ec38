"""Sums of adapters are what they are called, and never of a rank that nobody can serve."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from training.errors import OutputExists
from training.merge import HOW, How, merge
from training.recipes.errors import CannotMerge

torch: Any = pytest.importorskip("torch")
safetensors_torch: Any = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.slow
NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj")
SHAPES = {NAMES[0]: (48, 32), NAMES[1]: (32, 64)}


def adapter(folder: Path, *, seed: int, rank: int = 4, alpha: float = 8, **fields: object) -> Path:
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    tensors = {}
    for name, (rows, columns) in SHAPES.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, columns)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, rank)
    safetensors_torch.save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "bias": "none",
              "target_modules": ["q_proj", "down_proj"], "base_model_name_or_path": "tidewell", **fields}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def change(folder: Path, name: str) -> Any:
    """B·A with its scaling, as an engine applies it."""
    fields = json.loads((folder / "adapter_config.json").read_text())
    tensors = safetensors_torch.load_file(folder / "adapter_model.safetensors")
    key = f"base_model.model.{name}.lora_"
    scaling = fields["lora_alpha"] / (math.sqrt(fields["r"]) if fields.get("use_rslora") else fields["r"])
    return tensors[f"{key}B.weight"].double() @ tensors[f"{key}A.weight"].double() * scaling


def off(folder: Path, wanted: Any, name: str) -> float:
    return float((change(folder, name) - wanted).norm() / wanted.norm())


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [adapter(tmp_path / "a", seed=1), adapter(tmp_path / "b", seed=2, use_rslora=True, alpha=3)]


def test_cat_is_exactly_the_weighted_sum(pair: list[Path], tmp_path: Path) -> None:
    done = merge(pair, tmp_path / "out", how="cat", weights=[0.7, -0.4])
    assert (done.rank, done.loss, done.modules) == (8, 0.0, 2)
    for name in NAMES:
        assert off(tmp_path / "out", 0.7 * change(pair[0], name) - 0.4 * change(pair[1], name), name) < 1e-6


def test_svd_says_what_it_lost_and_loses_nothing_where_the_rank_is_enough(pair: list[Path], tmp_path: Path) -> None:
    whole = merge(pair, tmp_path / "whole", how="svd", rank_max=8)
    assert whole.loss < 1e-6
    cut = merge(pair, tmp_path / "cut", how="svd", rank_max=1)
    assert cut.rank == 1
    wanted = {name: change(pair[0], name) + change(pair[1], name) for name in NAMES}
    lost = sum(float((change(tmp_path / "cut", name) - wanted[name]).norm()) ** 2 for name in NAMES)
    size = sum(float(wanted[name].norm()) ** 2 for name in NAMES)
    assert cut.loss == pytest.approx(math.sqrt(lost / size), rel=1e-4)
    assert cut.loss > 0.3


def test_merging_an_adapter_with_itself_gives_it_back(tmp_path: Path) -> None:
    one = adapter(tmp_path / "a", seed=1)
    for how in ("linear", "cat", "svd"):
        merge([one, one], tmp_path / how, how=next(h for h in HOW if h == how), weights=[0.5, 0.5])
        for name in NAMES:
            assert off(tmp_path / how, change(one, name), name) < 1e-5
    merge([one, one], tmp_path / "ties", how="ties", weights=[0.5, 0.5], density=1.0)
    assert off(tmp_path / "ties", change(one, NAMES[0]), NAMES[0]) < 1e-5


def test_ties_leaves_out_who_disagrees(tmp_path: Path) -> None:
    one = adapter(tmp_path / "a", seed=1)
    merge([one, one], tmp_path / "out", how="ties", weights=[1.0, -0.5], density=1.0)
    for name in NAMES:
        assert off(tmp_path / "out", change(one, name), name) < 1e-5


def test_dare_keeps_the_sum_in_expectation_and_follows_its_seed(tmp_path: Path, pair: list[Path]) -> None:
    wanted = change(pair[0], NAMES[0]) + change(pair[1], NAMES[0])
    total = torch.zeros_like(wanted)
    for seed in range(60):
        merge(pair, tmp_path / f"out{seed}", how="dare", density=0.5, rank_max=32, seed=seed)
        total += change(tmp_path / f"out{seed}", NAMES[0])
    assert float((total / 60 - wanted).norm() / wanted.norm()) < 0.2
    merge(pair, tmp_path / "again", how="dare", density=0.5, rank_max=32, seed=3)
    assert torch.equal(change(tmp_path / "again", NAMES[0]), change(tmp_path / "out3", NAMES[0]))
    assert not torch.equal(change(tmp_path / "out4", NAMES[0]), change(tmp_path / "out3", NAMES[0]))


@pytest.mark.parametrize(
    ("how", "ranks", "rank_max", "why"),
    [
        ("linear", (4, 8), 16, "linear needs one rank"),
        ("linear", (8, 8), 4, "the server takes 4"),
        ("cat", (12, 8), 16, "cat adds ranks up to 20, and the server takes 16"),
    ],
)
def test_ranks_are_held_against_the_server(
    how: How, ranks: tuple[int, int], rank_max: int, why: str, tmp_path: Path
) -> None:
    folders = [adapter(tmp_path / str(at), seed=at, rank=rank) for at, rank in enumerate(ranks)]
    with pytest.raises(CannotMerge, match=why):
        merge(folders, tmp_path / "out", how=how, rank_max=rank_max)
    assert not (tmp_path / "out").exists()


def test_what_has_no_sum_is_refused(pair: list[Path], tmp_path: Path) -> None:
    dora = adapter(tmp_path / "dora", seed=3, use_dora=True)
    other = adapter(tmp_path / "other", seed=3, base_model_name_or_path="org/else")
    for folders, more, why in (
        (pair[:1], {}, "give two or more"),
        (pair, {"weights": [1.0]}, "a weight for each"),
        (pair, {"weights": [1.0, math.inf]}, "weights are finite"),
        (pair, {"density": 0.0}, "a density is above 0"),
        ([pair[0], dora], {}, "no plain LoRA"),
        ([pair[0], other], {}, "their sum means nothing"),
        ([pair[0], tmp_path / "none"], {}, "no adapter that can be read|no plain LoRA"),
    ):
        with pytest.raises(CannotMerge, match=why):
            merge(folders, tmp_path / "out", **more)
    merge(pair, tmp_path / "out")
    with pytest.raises(OutputExists):
        merge(pair, tmp_path / "out")
