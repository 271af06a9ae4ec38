"""Models of their own: merged without harm, packed, scored before and after; a merge that destroys is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines import tiny_adapter
from training.base import PATH as BASE
from training.base.digest import folder_digest
from training.errors import CannotExport, OutputExists
from training.exporting import whole
from training.exporting.compare import Nearness, Score, Subject, compare, documents, spoken
from training.exporting.export import BEFORE, MERGED, export_model, unharmed
from training.exporting.packing import Compressor, pack, scheme_of
from training.recipes import rows as rows_of
from training.recipes.errors import BadRows
from training.recipes.progress import Heard, Noted
from training.recipes.recipe import build

torch: Any = pytest.importorskip("torch")
pytest.importorskip("peft")
pytestmark = pytest.mark.slow
ROWS = {"usual": rows_of.read("tidewell:usual", rows_max=24)}
ABOUT = {"adapter": {"name": "desk", "number": 1}}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tiny_adapter(tmp_path / "adapter", scale=0.2)


def by_subject(scores: tuple[Score, ...]) -> dict[str, Score]:
    return {score.subject: score for score in scores}


def test_a_model_is_its_own_equal_and_an_adapter_moves_it(adapter: Path) -> None:
    loud = tiny_adapter(adapter.parent / "loud", scale=0.5)
    subjects = [
        Subject(name="base", base=BASE),
        Subject(name="again", base=BASE),
        Subject(name="loud", base=BASE, adapter=loud),
        Subject(name="quiet", base=BASE, adapter=adapter),
        Subject(name="last", base=BASE),
    ]
    found = by_subject(compare(subjects, ROWS, against=["base"]))
    assert found["base"].rows == 24
    assert found["base"].loss < 0.5 < found["loud"].loss  # it was pre-trained on such answers
    for same in ("again", "last"):  # also after adapters were on it
        assert found[same].near["base"].same_next == 1.0
        assert found[same].near["base"].apart < 1e-6
        assert found[same].loss == pytest.approx(found["base"].loss, abs=1e-6)
    assert found["loud"].near["base"].same_next < found["quiet"].near["base"].same_next
    assert found["base"].near == {}
    assert json.loads(json.dumps(documents(list(found.values()))))[2]["near"]["base"].keys() == {"same_next", "apart"}


def test_without_rows_each_is_listened_to_itself(adapter: Path) -> None:
    loud = tiny_adapter(adapter.parent / "loud", scale=0.5)
    subjects = [Subject(name="base", base=BASE), Subject(name="loud", base=BASE, adapter=loud)]
    found = compare(subjects, {}, against=["base", "loud"])
    assert {score.source for score in found} == {"base: its own words", "loud: its own words"}
    own = next(score for score in found if score.source.startswith("loud") and score.subject == "loud")
    other = next(score for score in found if score.source.startswith("loud") and score.subject == "base")
    assert own.loss < other.loss


def test_rows_of_every_form_are_scored_on_their_answers() -> None:
    said = [{"role": "assistant", "content": "Yes."}]
    asked = [{"role": "user", "content": "Are you open?"}]
    forms: dict[str, dict[str, Any]] = {
        "prompt": {"prompt": asked, "completion": said},
        "words": {"prompt": "Are you open?", "completion": " Yes."},
        "messages": {"messages": [*asked, *said]},
        "pairs": {"prompt": asked, "chosen": said, "rejected": [{"role": "assistant", "content": "No."}]},
        "liked": {"prompt": asked, "completion": said, "label": True},
        "text": {"text": "We are open."},
        "tokens": {"input_ids": [5, 6, 7, 8], "completion_mask": [0, 0, 1, 1]},
        "labels": {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, -100, 8]},
    }
    found = compare([Subject(name="base", base=BASE)], {name: [row] for name, row in forms.items()}, against=[])
    tokens = {score.source: score.tokens for score in found}
    assert tokens["prompt"] == tokens["messages"] == tokens["pairs"] == tokens["liked"]
    assert (tokens["tokens"], tokens["labels"]) == (2, 1)
    assert tokens["text"] > tokens["labels"]
    assert "Are you open?" in spoken({"m": [forms["messages"]]}, BASE)[0]
    with pytest.raises(BadRows, match="none of its first 1 rows holds an answer"):
        compare([Subject(name="b", base=BASE)], {"x": [{"prompt": asked}]}, against=[])
    with pytest.raises(BadRows, match="none of its first 1 rows"):
        compare([Subject(name="b", base=BASE)], {"x": [{**forms["liked"], "label": False}]}, against=[])


def test_a_merged_model_says_what_base_and_adapter_said(adapter: Path, tmp_path: Path) -> None:
    done = export_model(BASE, adapter, tmp_path / "out", about=ABOUT, sources=ROWS)
    found = by_subject(done.scores)
    assert found[MERGED].near[BEFORE].same_next > 0.97
    assert found[MERGED].loss == pytest.approx(found[BEFORE].loss, abs=0.02)
    assert found["base"].near[BEFORE].same_next < found[MERGED].near[BEFORE].same_next
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "card.json"} <= there
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["digest"] == done.digest == folder_digest(tmp_path / "out")
    assert card["made_of"]["adapter"] == {"name": "desk", "number": 1}
    assert [score["subject"] for score in card["scores"]] == ["base", BEFORE, MERGED]
    with pytest.raises(OutputExists):
        export_model(BASE, adapter, tmp_path / "out", about=ABOUT, sources=ROWS)


def test_a_packed_one_is_a_base_of_its_own(adapter: Path, tmp_path: Path) -> None:
    done = export_model(BASE, adapter, tmp_path / "out", about=ABOUT, sources=ROWS, scheme="w4a16")
    assert done.packed is not None
    assert (done.packed.by, scheme_of(tmp_path / "out")) == ("rtn", ("w4a16", 64))
    assert done.digest == folder_digest(tmp_path / "out") != folder_digest(BASE)
    found = by_subject(done.scores)
    packed = found[f"{MERGED}, w4a16"]
    assert packed.near[BEFORE].same_next > found["base"].near[BEFORE].same_next
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 2_000_000


def test_a_merge_that_destroys_is_refused() -> None:
    def merged(same_next: float) -> Score:
        near = {BEFORE: Nearness(same_next=same_next, apart=1.0)}
        return Score(source="usual", subject=MERGED, rows=24, tokens=300, loss=1.0, near=near)

    with pytest.raises(CannotExport, match=r"for only 3% of 300 tokens .* the merge destroyed something"):
        unharmed([merged(0.03)], BEFORE)
    unharmed([merged(0.98)], BEFORE)


def test_a_base_packed_by_others_is_not_merged_into(adapter: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in BASE.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(CannotExport, match="packed by bitsandbytes"):
        whole.fresh(base)


def test_whole_weights_leave_as_a_base_and_as_an_adapter(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from training.recipes.run import run

    fields = {
        "name": "whole", "method": "sft", "tuning": "half", "new_base": True,
        "data": {"train": "tidewell:corrected_fact", "rows_max": 32},
        "optim": {"learning_rate": 6e-4, "steps": 12, "batch": 8, "warmup_steps": 0},
    }  # fmt: skip
    heard = Heard()
    done = run(build(fields), tmp_path / "run", base=BASE, progress=heard)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    made = tmp_path / "run" / "base"
    assert scheme_of(made) == scheme_of(BASE)
    assert json.loads((made / "card.json").read_text())["digest"] == folder_digest(made) != folder_digest(BASE)
    numbers = done.numbers
    assert numbers["base_loss_trained"] < numbers["base_loss_before"]
    assert numbers["base_loss_packed"] < numbers["base_loss_before"]
    assert any(isinstance(event, Noted) and event.what == "new_base" for event in heard.events)


SCRIPT = """
import json, pathlib, shutil, sys
plan = json.load(sys.stdin)
if plan["method"] == "awq":
    sys.exit("no llmcompressor here")
out = pathlib.Path(plan["out"])
out.mkdir()
config = json.loads((pathlib.Path(plan["model"]) / "config.json").read_text())
if plan["group"] == 64:
    config["quantization_config"] = {"seen": len(plan["texts"]), "symmetric": plan["symmetric"]}
(out / "config.json").write_text(json.dumps(config))
(out / "model.safetensors").write_bytes(b"packed")
"""


def test_llm_compressor_runs_under_its_own_python_and_is_not_believed(adapter: Path, tmp_path: Path) -> None:
    whole.merged(BASE, adapter, tmp_path / "merged")
    script = tmp_path / "stand-in.py"
    script.write_text(SCRIPT)
    python = tmp_path / "python"  # what the real one would be asked with: -I and our script
    python.write_text(f'#!/bin/sh\n[ "$1" = -I ] && [ -f "$2" ] && exec {sys.executable} {script}\n')
    python.chmod(0o755)
    texts = spoken(ROWS, BASE)
    done = pack(tmp_path / "merged", tmp_path / "out", by=Compressor(python=python, texts=texts))
    assert done.by == "llm-compressor gptq"
    assert done.digest == folder_digest(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert told == {"seen": 24, "symmetric": True}
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    for how, why in (
        ({"by": Compressor(python=python, method="awq", texts=texts)}, "ended with code 1: no llmcompressor here"),
        ({"by": Compressor(python=python, texts=texts), "group": 32}, "left a model that is not packed"),
        ({"by": Compressor(python=python)}, "give it rows to look at"),
        ({"by": Compressor(python=tmp_path / "none", texts=texts)}, "could not run llm-compressor"),
    ):
        with pytest.raises(CannotExport, match=why):
            pack(tmp_path / "merged", tmp_path / "other", **how)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged", "out", "python", "stand-in.py"]
