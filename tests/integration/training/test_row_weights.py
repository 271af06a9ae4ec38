"""A row counts as much as it weighs and a masked token not at all, in TRL's own losses; packing changes neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.base import PATH
from training.data.build import Place, made, room_under
from training.data.rules import Rules
from training.data.signals.stream import Left
from training.data.values import Candidate, Kind, Message
from training.recipes.progress import Heard, Noted
from training.recipes.recipe import Method, build

torch: Any = pytest.importorskip("torch")
trl: Any = pytest.importorskip("trl")
pytest.importorskip("pyarrow")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ASKED = ("Do you sell lamps?", "Is it open today?")
GOOD = ("Yes, we have lamps.", "Call [PHONE] for that.")
BAD = ("No, go away.", "I will not say.")
KINDS: dict[Method, Kind] = {"sft": "sft", "kto": "kto", "dpo": "dpo", "orpo": "dpo", "reward": "reward"}


def candidates(kind: Kind, weights: tuple[float, ...] = (1.5, 0.5)) -> list[Candidate]:
    return [
        Candidate(
            kind=kind, prompt=(Message(role="user", content=ASKED[at % 2]),), answer=GOOD[at % 2],
            rejected=BAD[at % 2] if kind in ("dpo", "reward") else "", label=at % 2 == 0 if kind == "kto" else None,
            weight=weight, origin="thumbs", owner=f"user-{at}", inferences=(f"id-{at}",),
        )
        for at, weight in enumerate(weights)
    ]  # fmt: skip


def rows(method: Method, weights: tuple[float, ...] = (1.5, 0.5)) -> list[dict[str, Any]]:
    """As a trainer gets them: tokens, masks, weights."""
    from training.data.rows import row
    from training.data.template import Encoded, Template
    from training.recipes.rows import columns

    some = candidates(KINDS[method], weights)
    tokens = Template(PATH).encode(some)
    return columns([row(c, e, c.weight) for c, e in zip(some, tokens, strict=True) if isinstance(e, Encoded)], method)


def trainer_of(method: Method, learnt: list[dict[str, Any]], folder: Path, **settings: Any) -> Any:
    from peft import LoraConfig
    from transformers import set_seed
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    from training.model import load, quiet
    from training.recipes.lesson import table
    from training.recipes.trainers import counting

    kinds = {
        "sft": (trl.SFTTrainer, trl.SFTConfig), "kto": (trl.KTOTrainer, trl.KTOConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig), "orpo": (ORPOTrainer, ORPOConfig),
        "reward": (trl.RewardTrainer, trl.RewardConfig),
    }  # fmt: skip
    kind, config = kinds[method]
    if method == "kto":
        settings = {"loss_type": "apo_zero_unpaired", **settings}
    if method == "sft":
        settings = {"completion_only_loss": True, **settings}
    with quiet():
        set_seed(0)
        model, tokenizer = load(PATH, head="score" if method == "reward" else "words")
        return counting(kind)(
            model=model,
            args=config(
                output_dir=str(folder), per_device_train_batch_size=len(learnt), use_cpu=True, bf16=False, report_to=[],
                gradient_checkpointing=False, dataloader_pin_memory=False, seed=0, **{"max_length": 256, **settings},
            ),
            train_dataset=table(learnt),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=4, target_modules="all-linear", task_type="SEQ_CLS" if method == "reward" else "CAUSAL_LM"
            ),
        )  # fmt: skip


def step(trainer: Any) -> tuple[float, Any]:
    """The loss of the first batch, and its gradient."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
    loss.backward()
    parts = [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad and p.grad is not None]
    return float(loss.detach()), torch.cat(parts)


@pytest.mark.parametrize("method", ["sft", "kto", "dpo", "orpo", "reward"])
def test_the_gradient_is_that_of_a_loss_in_which_each_row_counts_as_it_weighs(method: Method, tmp_path: Path) -> None:
    more = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]} if method == "dpo" else {}
    learnt = rows(method)
    bare = [{name: value for name, value in row.items() if name != "weight"} for row in learnt]
    alone = [step(trainer_of(method, [row], tmp_path, **more))[1] for row in bare]
    shares = [0.5, 0.5]
    if method == "sft":  # tokens count alike there, so a longer answer counts for more
        counted = [sum(row["completion_mask"]) for row in learnt]
        shares = [one / sum(counted) for one in counted]
    loss, both = step(trainer_of(method, bare, tmp_path, **more))
    shown, weighted = step(trainer_of(method, learnt, tmp_path, **more))
    assert shown == pytest.approx(loss, rel=1e-6)
    assert not torch.allclose(weighted, both, rtol=1e-2, atol=1e-6)
    if method in ("orpo", "dpo"):  # their likelihood of chosen answers is a mean over tokens, the rest one over rows
        doubled = [{**row, "weight": 2.0} for row in bare]
        assert torch.allclose(step(trainer_of(method, doubled, tmp_path, **more))[1], 2 * both, rtol=1e-4, atol=1e-7)
        only = step(trainer_of(method, [{**bare[0], "weight": 2.0}, {**bare[1], "weight": 0.0}], tmp_path, **more))[1]
        assert torch.nn.functional.cosine_similarity(only, alone[0], dim=0) > 0.98
        return
    expected = sum(share * row["weight"] * one for share, row, one in zip(shares, learnt, alone, strict=True))
    assert torch.allclose(weighted, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["kto", "dpo"])
def test_placeholders_count_to_no_likelihood(method: Method, tmp_path: Path) -> None:
    more = {"loss_type": "kto"} if method == "kto" else {}
    trainer = trainer_of(method, rows(method), tmp_path, **more)
    batch = next(iter(trainer.get_train_dataloader()))
    tokenizer = trainer.processing_class
    for mask, ids in (("completion_mask", "input_ids"), ("KL_completion_mask", "KL_input_ids")):
        if ids not in batch:
            assert method == "dpo"
            continue
        said = [
            tokenizer.decode([int(t) for t, counts in zip(line, keeps, strict=True) if counts])
            for line, keeps in zip(batch[ids], batch[mask], strict=True)
        ]
        assert any("for that." in each for each in said)
        assert not any("PHONE" in each for each in said)
        assert any("PHONE" in tokenizer.decode(line) for line in batch[ids])


def test_orpo_learns_no_placeholder_from_either_half_of_its_loss(tmp_path: Path) -> None:
    trainer = trainer_of("orpo", rows("orpo", (1.0, 1.0)), tmp_path)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    at = next(place for place, ids in enumerate(batch["chosen_mask"]) if not all(ids))
    places = [len(batch["prompt_ids"][at]) + n for n, counts in enumerate(batch["chosen_mask"][at]) if not counts]
    assert all(batch["chosen_labels"][at, place] == -100 for place in places)
    seen: list[Any] = []
    original = trainer.model.forward

    def forward(*given: Any, **named: Any) -> Any:
        out = original(*given, **named)
        kept = out.logits
        kept.retain_grad()
        seen.append(kept)
        out.logits = kept * 1
        return out

    trainer.model.forward = forward
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    gradient = seen[0].grad[at].abs().sum(-1)
    assert all(gradient[place - 1] == 0 for place in places)
    assert (gradient > 0).sum() > 5


def test_packed_rows_see_only_themselves_and_keep_their_weights(tmp_path: Path) -> None:
    for weights in ((1.0, 1.0), (1.5, 0.5)):
        learnt = rows("sft", weights)
        if weights[0] == weights[1]:
            learnt = [{name: value for name, value in row.items() if name != "weight"} for row in learnt]
        loss, gradient = step(trainer_of("sft", learnt, tmp_path))
        packed = trainer_of("sft", learnt, tmp_path, packing=True)
        assert len(packed.train_dataset) == 1
        packed_loss, packed_gradient = step(packed)
        assert packed_loss == pytest.approx(loss, rel=1e-4)
        assert torch.allclose(packed_gradient, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["sft", "kto", "dpo", "orpo", "reward", "pretrain"])
def test_a_compiled_dataset_is_learnt_with_its_weights_and_masks(method: Method, tmp_path: Path) -> None:
    from training.data.template import Template
    from training.recipes.run import run

    kind: Kind = "text" if method == "pretrain" else KINDS[method]
    asked = candidates(kind, (1.5, 0.5) * 6)
    rules = Rules(kind=kind, near_duplicates=100, evaluation=0.0)
    place = Place(root=tmp_path / "datasets", template=Template(PATH))
    with room_under(place.root) as folder:
        built = made(asked, rules, place, folder, Left(), origin="test")
    assert built.manifest.parts["train"].rows == 12
    heard = Heard()
    wanted = build(
        {
            "name": "weighed", "method": method, "data": {"train": str(built.folder)},
            "optim": {"learning_rate": 5e-3, "steps": 2, "batch": 4, "warmup_steps": 0},
        }
    )  # fmt: skip
    run(wanted, tmp_path / "run", base=PATH, progress=heard)
    noted = {event.what: event.text for event in heard.events if isinstance(event, Noted)}
    assert noted["weights"] == "rows count 0.50 to 1.50 times as much as their average"
    assert "masks_lost" not in noted
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_rows_beside_compiled_ones_get_tokens_and_another_bases_tokens_are_made_again() -> None:
    from training.recipes.tokens import fitted

    compiled = rows("sft")
    texts = {
        "prompt": [{"role": "user", "content": ASKED[0]}],
        "completion": [{"role": "assistant", "content": "Yes."}],
    }
    own = {**texts, "completion": [{"role": "assistant", "content": GOOD[0]}], **compiled[0]}
    mixed, said = fitted([own, texts], "sft", PATH)
    assert mixed[0] is own
    assert mixed[1]["input_ids"][0] == own["input_ids"][0]
    assert mixed[1]["completion_mask"][-1] == 1
    assert said.startswith("1 rows had no tokens yet")
    strange = {**own, "input_ids": [one + 1 for one in own["input_ids"]]}
    again, said = fitted([strange, texts], "sft", PATH)
    assert again[0]["input_ids"] == own["input_ids"]
    assert "another base's" in said
    assert fitted([texts], "sft", PATH) == ([texts], "")
