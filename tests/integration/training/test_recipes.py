"""Every method trains a few steps on the embedded base and leaves an adapter that moves it; failures are typed."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.base import PATH
from training.recipes.errors import BadRecipe, BadTemplate, DiskFull, NotFinite, OutOfMemory, TooStale
from training.recipes.progress import Began, Finished, Heard, Noted, Saved, Stepped
from training.recipes.recipe import Recipe, build

torch: Any = pytest.importorskip("torch")
pytest.importorskip("trl")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
EDITS, PAIRS = (
    {"train": "tidewell:corrected_fact", "rows_max": 24},
    {"train": "tidewell:polite_choices", "rows_max": 24},
)
GOALS = {"train": "tidewell:polite_goals", "rows_max": 12}
RL = {"rewards": ["contains:fact", "tidewell:polite"], "generations": 4, "answer_tokens_max": 12}
FEW = {"learning_rate": 5e-3, "steps": 2, "batch": 4, "warmup_steps": 0}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft", "data": EDITS},
    "chosen": {"method": "auto", "data": EDITS},
    "packed": {"method": "sft", "data": EDITS, "sft": {"packing": True}},
    "pretrain": {"method": "pretrain", "data": {"train": "tidewell:corrected_text", "rows_max": 24}},
    "nf4": {"method": "sft", "data": EDITS, "quantization": "nf4"},
    "int8": {"method": "sft", "data": EDITS, "quantization": "int8"},
    "dora": {"method": "sft", "data": EDITS, "adapter": {"kind": "dora"}},
    "rslora": {"method": "sft", "data": EDITS, "adapter": {"kind": "rslora"}},
    "pissa": {"method": "sft", "data": EDITS, "adapter": {"kind": "pissa"}},
    "lora-plus": {"method": "sft", "data": EDITS, "optim": {**FEW, "lora_plus": 4.0}},
    "neftune": {"method": "sft", "data": EDITS, "optim": {**FEW, "neftune": 5.0, "checkpointing": True}},
    "full": {"method": "sft", "data": EDITS, "tuning": "full"},
    "half": {"method": "sft", "data": EDITS, "tuning": "half"},
    "kto": {"method": "kto", "data": {"train": "tidewell:refuse_thumbs", "rows_max": 24}},
    "dpo": {"method": "dpo", "data": PAIRS, "dpo": {"loss": ["sigmoid", "sft"], "weights": [1.0, 0.5]}},
    "orpo": {"method": "orpo", "data": PAIRS},
    "grpo": {"method": "grpo", "data": GOALS, "rl": RL},
    "rloo": {"method": "rloo", "data": GOALS, "rl": RL},
    "ppo": {"method": "ppo", "data": GOALS, "rl": RL},
}


def recipe(**fields: Any) -> Recipe:
    return build({"name": "test", "optim": FEW, **fields})


def run(wanted: Recipe, out: Path, heard: Heard | None = None, start: Path | None = None) -> Heard:
    from training.recipes.run import run as train

    heard = heard or Heard()
    train(wanted, out, base=PATH, start=start, progress=heard)
    return heard


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_an_adapter_that_moves_the_base(name: str, tmp_path: Path) -> None:
    from adapters.errors import Findings
    from adapters.manifest import read_config
    from training.probe import model as models

    heard = run(recipe(**METHODS[name]), tmp_path / "run")
    folder = tmp_path / "run" / "adapter"
    findings = Findings()
    assert read_config(folder / "adapter_config.json", findings, rank_max=16) is not None
    assert not findings.reasons()
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    model, _ = models.load(PATH)
    asked = [list(range(3, 40))]
    before = models.rows(model, asked)[0]
    after = models.rows(models.adapted(model, folder), asked)[0]
    assert max(abs(x - y) for x, y in zip(before, after, strict=True)) > 1e-3
    steps = [event for event in heard.events if isinstance(event, Stepped)]
    assert [event.step for event in steps] == [1, 2]
    assert isinstance(heard.events[-1], Finished)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["base"]["digest"].startswith("sha256")
    assert record["generation"] == 1
    if name in ("grpo", "rloo", "ppo"):
        assert all("kl" in event.numbers and "reward" in event.numbers for event in steps)


def test_a_reward_model_judges_for_an_online_method(tmp_path: Path) -> None:
    data = {**PAIRS, "held": "tidewell:polite_choices"}
    run(recipe(method="reward", data=data, optim={**FEW, "evaluate_every": 2, "batch": 8}), tmp_path / "judge")
    record = json.loads((tmp_path / "judge" / "run.json").read_text())
    assert 0 <= record["numbers"]["eval_accuracy"] <= 1
    asked = {**RL, "rewards": [f"model:{tmp_path / 'judge' / 'adapter'}"]}
    for method in ("grpo", "ppo"):
        heard = run(recipe(method=method, data=GOALS, rl=asked), tmp_path / method)
        rewards = [event.numbers["reward"] for event in heard.events if isinstance(event, Stepped)]
        assert all(reward != 0 for reward in rewards)


def test_training_goes_on_from_an_adapter_but_not_for_ever(tmp_path: Path) -> None:
    run(recipe(method="sft", data=EDITS), tmp_path / "first")
    start = tmp_path / "first" / "adapter"
    run(recipe(method="dpo", data=PAIRS, start_from="test:1"), tmp_path / "second", start=start)
    assert json.loads((tmp_path / "second" / "run.json").read_text())["generation"] == 2
    with pytest.raises(TooStale, match="generation 1, and recipe test allows 1"):
        run(recipe(method="sft", data=EDITS, start_from="test:1", generations_max=1), tmp_path / "third", start=start)


@pytest.mark.parametrize("name", ["sft", "full", "pissa", "lora-plus", "dpo", "kto", "grpo", "rloo"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    fields = METHODS[name]
    wanted = recipe(**{**fields, "optim": {**FEW, **fields.get("optim", {}), "steps": 4, "save_every": 2}})

    class Stops(Heard):
        """Ends the run between two checkpoints."""

        def said(self, event: Any) -> None:
            super().said(event)
            if isinstance(event, Stepped) and event.step == 3:
                raise KeyboardInterrupt

    run(wanted, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(wanted, tmp_path / "stopped", Stops([]))
    unfinished = tmp_path / "stopped" / "checkpoints" / "checkpoint-9"
    unfinished.mkdir()  # written in part: it has no mark of being whole
    other = wanted.model_copy(update={"seed": 5})
    with pytest.raises(BadRecipe, match="holds a run of another recipe"):
        run(other, tmp_path / "stopped")
    heard = run(wanted, tmp_path / "stopped")
    assert Noted(what="resumed", text="from checkpoint-2") in heard.events
    assert [event.step for event in heard.events if isinstance(event, Saved)] == [4]
    left = [
        (tmp_path / folder / "adapter" / "adapter_model.safetensors").read_bytes() for folder in ("whole", "stopped")
    ]
    assert left[0] == left[1]


def test_a_loss_that_is_no_number_stops_with_a_diagnosis(tmp_path: Path) -> None:
    wild = recipe(method="sft", data=EDITS, optim={**FEW, "learning_rate": 1e30, "steps": 8, "clip": 1e30})
    with pytest.raises(NotFinite, match="no finite number; training stopped") as stopped:
        run(wild, tmp_path / "run")
    assert stopped.value.step < 8
    assert not (tmp_path / "run" / "adapter").exists()


def test_answers_that_go_too_far_end_an_online_run(tmp_path: Path) -> None:
    for method in ("grpo", "ppo"):
        wild = {**FEW, "learning_rate": 0.05, "steps": 12}
        heard = run(recipe(method=method, data=GOALS, rl={**RL, "kl_max": 0.05}, optim=wild), tmp_path / method)
        assert any(isinstance(event, Noted) and event.what == "kl_limit" for event in heard.events)
        assert max(event.step for event in heard.events if isinstance(event, Stepped)) < 12


def test_settings_of_trl_pass_through_and_others_are_refused_together(tmp_path: Path) -> None:
    run(recipe(method="sft", data=EDITS, trainer={"loss_type": "dft", "adam_beta2": 0.98}), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["recipe"]["trainer"] == {"loss_type": "dft", "adam_beta2": 0.98}
    with pytest.raises(BadRecipe) as refused:
        run(recipe(method="dpo", data=PAIRS, trainer={"betta": 1, "loss_type": "ipo", "nope": 2}), tmp_path / "other")
    said = str(refused.value)
    assert "trainer.betta: DPOConfig has no such setting; did you mean beta?" in said
    assert "trainer.loss_type: the recipe decides it already" in said
    assert "trainer.nope" in said


def test_long_rows_leave_and_are_counted(tmp_path: Path) -> None:
    heard = run(recipe(method="sft", data={**EDITS, "rows_max": 60, "tokens_max": 26}), tmp_path / "run")
    notes = [event.text for event in heard.events if isinstance(event, Noted) and event.what == "rows_too_long"]
    assert len(notes) == 1
    began = next(event for event in heard.events if isinstance(event, Began))
    assert notes[0].startswith(f"{60 - began.rows} of 60 rows")


def test_a_template_without_marks_cannot_tell_the_assistants_words(tmp_path: Path) -> None:
    import shutil

    base = tmp_path / "tidewell"
    shutil.copytree(PATH, base)
    template = base / "chat_template.jinja"
    plain = template.read_text().replace("{% generation %}", "").replace("{% endgeneration %}", "")
    template.write_text(plain)
    rows = tmp_path / "rows.jsonl"
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
    rows.write_text("".join(json.dumps({"messages": chat}) + "\n" for _ in range(8)))
    wanted = recipe(method="sft", data={"train": str(rows)}, sft={"assistant_only": True})
    from training.recipes.run import run as train

    with pytest.raises(BadTemplate, match="marks the assistant's words"):
        train(wanted, tmp_path / "marked", base=base, progress=Heard())
    run(wanted, tmp_path / "run")


@pytest.mark.parametrize(
    ("raised", "expected", "why"),
    [
        (OSError(28, "No space left on device"), DiskFull, "checkpoint-2 is whole"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory, "Lower optim.batch"),
    ],
)
def test_a_full_disk_and_full_memory_say_what_to_do(
    raised: Exception, expected: type[Exception], why: str, tmp_path: Path
) -> None:
    class Breaks(Heard):
        """The next write, or the next step, meets the machine's end."""

        def said(self, event: Any) -> None:
            super().said(event)
            if isinstance(event, Stepped) and event.step == 3:
                raise raised

    wanted = recipe(method="sft", data=EDITS, optim={**FEW, "steps": 4, "save_every": 2})
    with pytest.raises(expected, match=why):
        run(wanted, tmp_path / "run", Breaks([]))
    heard = run(wanted, tmp_path / "run")
    assert Noted(what="resumed", text="from checkpoint-2") in heard.events


def test_a_compiled_dataset_is_learnt_by_its_tokens(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(PATH)
    ask, said = [{"role": "user", "content": "Are you open?"}], [{"role": "assistant", "content": "Yes, on weekdays."}]
    prompt = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*ask, *said], return_dict=False)
    mask = [int(at >= len(prompt)) for at in range(len(whole))]
    row = {"prompt": ask, "completion": said, "input_ids": whole, "completion_mask": mask, "weight": 1.0}
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "evaluation"):
        parquet.write_table(pyarrow.Table.from_pylist([row] * 8), folder / f"{split}.parquet")
    data = {"train": str(folder), "held": str(folder)}
    run(recipe(method="sft", data=data, optim={**FEW, "evaluate_every": 2}), tmp_path / "tokens")
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps({"prompt": ask, "completion": said}) + "\n" for _ in range(8)))
    run(recipe(method="sft", data={"train": str(lines)}), tmp_path / "texts")
    losses = [json.loads((tmp_path / name / "run.json").read_text())["numbers"] for name in ("tokens", "texts")]
    assert losses[0]["train_loss"] == losses[1]["train_loss"]
    assert losses[0]["eval_loss"] < losses[0]["loss_first"]
