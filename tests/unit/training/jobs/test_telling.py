"""From a run's events to a job's."""

from __future__ import annotations

from pathlib import Path

from tests.unit.training.jobs.places import saved, stepped, tell, trained
from training.jobs.telling import STEPS_TOLD, Tail, finished, last_failure, mend, told
from training.jobs.values import Job
from training.recipes.progress import Evaluated, Noted, Stepped

JOB = Job(id="ftjob-1", tenant="acme", name="support", recipe={})


def test_a_step_is_a_metrics_event_in_openais_words() -> None:
    numbers = {"loss": 0.5, "mean_token_accuracy": 0.75, "grad_norm": 2.0, "entropy": float("nan")}
    event = told(JOB, 7, Stepped(step=3, steps=20, numbers=numbers), now=5.0)
    assert event is not None
    assert (event.kind, event.level, event.at, event.message) == (
        "metrics",
        "info",
        5.0,
        "Step 3/20: training loss=0.50",
    )
    assert event.data == {
        "step": 3, "total_steps": 20, "train_loss": 0.5, "train_mean_token_accuracy": 0.75, "grad_norm": 2.0,
    }  # fmt: skip


def test_an_evaluation_is_a_metrics_event_too() -> None:
    event = told(JOB, 7, Evaluated(step=3, numbers={"eval_loss": 0.5, "eval_mean_token_accuracy": 0.8}), now=5.0)
    assert event is not None
    assert event.data == {"step": 3, "valid_loss": 0.5, "valid_mean_token_accuracy": 0.8}


def test_of_a_long_run_a_thousand_steps_are_told() -> None:
    steps = 5 * STEPS_TOLD
    heard = [told(JOB, at, Stepped(step=at, steps=steps, numbers={}), now=0.0) for at in range(1, steps + 1)]
    kept = [event for event in heard if event is not None]
    assert len(kept) == STEPS_TOLD + 1
    assert kept[0].data["step"] == 1
    assert kept[-1].data["step"] == steps


def test_what_a_person_may_want_to_change_is_a_warning() -> None:
    levels = [told(JOB, 1, Noted(what=what, text="…"), now=0.0) for what in ("rows_too_long", "resumed")]
    assert [event.level for event in levels if event is not None] == ["warn", "info"]


def test_the_same_line_has_the_same_id_and_another_another() -> None:
    event = Stepped(step=3, steps=20, numbers={})
    one, again, other = (told(JOB, at, event, now=now) for at, now in ((7, 1.0), (7, 2.0), (8, 1.0)))
    assert one is not None
    assert again is not None
    assert other is not None
    assert one.id == again.id != other.id


def test_a_file_is_read_as_it_grows_and_half_a_line_waits(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    assert list(tail.read()) == []
    tell(tmp_path, stepped(1), saved(1))
    assert [type(event).__name__ for _, event in tail.read()] == ["Stepped", "Saved"]
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "saved", "step": 2')
    assert list(tail.read()) == []
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(', "folder": "x"}\n')
    assert [event for _, event in tail.read()] != []
    assert tail.saved == 2


def test_a_line_that_a_kill_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tell(tmp_path, stepped(1))
    with path.open("a") as file:
        file.write('{"event": "stepped", "step": 2, "st')
    mend(tmp_path)
    mend(tmp_path)
    tell(tmp_path, stepped(2))
    steps = [event.step for _, event in Tail(tmp_path).read() if isinstance(event, Stepped)]
    assert steps == [1, 2]


def test_what_follows_a_cut_line_without_a_break_is_read(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"event": "stepped", "step": 2, "st')
    tell(tmp_path, stepped(3))
    assert [event.step for _, event in Tail(tmp_path).read() if isinstance(event, Stepped)] == [3]


def test_a_run_is_finished_when_its_last_word_says_so(tmp_path: Path) -> None:
    assert finished(tmp_path) is None
    tell(tmp_path, stepped(1))
    assert finished(tmp_path) is None
    trained(tmp_path)
    assert finished(tmp_path) is not None
    tell(tmp_path, stepped(1))
    assert finished(tmp_path) is None


def test_the_last_word_of_a_process_is_found_in_its_log(tmp_path: Path) -> None:
    assert last_failure(tmp_path) is None
    log = tmp_path / "log.txt"
    log.write_text('{"event": "failed", "code": "one"}\n{"event": "began"}\nsome words\n')
    assert last_failure(tmp_path) is None
    log.write_text('x\n{"event": "failed", "code": "one"}\n  a traceback\n')
    found = last_failure(tmp_path)
    assert found is not None
    assert found["code"] == "one"
