"""`graftline datasets`: from records in a home to a dataset on disk, and from a file."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gateway.verbs.datasets import app
from monitoring.records.events import Event, Feedback, Inference, uuid7
from monitoring.records.sql import SqlRecords
from training.data.errors import BadFile, BadRules

pytestmark = pytest.mark.slow
pytest.importorskip("pyarrow")
pytest.importorskip("transformers")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words: str) -> str:
    done = CliRunner().invoke(app, [*words], catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def record(home: Path, count: int = 12) -> None:
    store = SqlRecords(home.absolute() / "records")
    events: list[Event] = []
    for number in range(count):
        word = chr(ord("a") + number) * 9
        asked = {"messages": [{"role": "user", "content": f"What is {word} good for?"}]}
        answer = {"choices": [{"message": {"role": "assistant", "content": f"It {word} is for {word}."}}]}
        events.append(
            Inference(
                id=uuid7(), completion_id=f"chatcmpl-{number}", tenant="default", endpoint="chat", model="tidewell",
                started_at=time.time(), status=200, finish="stop", user=f"user-{number}", captured="full",
                request=json.dumps(asked), response=json.dumps(answer),
            )
        )  # fmt: skip
        events.append(
            Feedback(
                id=uuid7(), at=time.time(), tenant="default", target=f"chatcmpl-{number}", kind="thumbs",
                rater=f"user-{number}", value=1.0 if number % 2 else -1.0,
            )
        )  # fmt: skip
    store.ingest("test", 1, events)
    store.close()


def test_records_become_a_dataset_that_can_be_shown_and_verified(home: Path) -> None:
    record(home)
    (home.parent / "out.txt").write_text("user-3\n")
    told = run("build", "--kind", "kto", "--opt-outs", "out.txt")
    assert "opted_out: its user does not want to be learnt from" in told
    (folder,) = (home / "datasets").iterdir()
    assert folder.name[:12] in run("show")
    told = run("show", folder.name[:10], "--verify")
    assert "kind kto from records" in told
    assert "verified" in told
    document = json.loads(run("show", folder.name[:10], "--json"))
    assert document["manifest"]["seen"]["records"] == 12
    assert document["manifest"]["base"].startswith("sha256:")


def test_a_file_is_looked_at_then_imported(home: Path) -> None:
    rows = [{"prompt": f"{chr(97 + n) * 7}?", "completion": f"{chr(97 + n) * 8}."} for n in range(20)]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "20 rows for sft, 0 bad lines" in run("import", "a.jsonl", "--dry-run")
    assert not (home / "datasets").exists()
    assert "written to" in run("import", "a.jsonl")
    Path("b.jsonl").write_text('{"prompt": "x"\n{"text": "y"}')
    with pytest.raises(BadFile, match="line 1"):
        run("import", "b.jsonl", "--kind", "text")
    assert "written to" in run("import", "b.jsonl", "--kind", "text", "--skip-bad")


def test_wrong_rules_are_all_named(home: Path) -> None:
    Path("rules.toml").write_text('evaluation = 2\nwhat = "x"\n')
    with pytest.raises(BadRules, match=r"(?s)evaluation.*what"):
        run("build", "--kind", "kto", "--rules", "rules.toml")
    assert isinstance(app, typer.Typer)
