"""Jobs, events and checkpoints have OpenAI's fields, every one of them: its SDK reads what is missing as None."""

from __future__ import annotations

from dataclasses import replace

from gateway.api.control.files_documents import file, listed
from gateway.api.control.fine_tuning_documents import checkpoint, event, job, page, verdict
from training.files.values import File
from training.jobs.values import Checkpoint, Job, JobError, JobEvent, JobState

JOB = Job(
    id="ftjob-1", tenant="acme", created_at=5.9, name="polite", recipe={"name": "polite"}, model="tidewell",
    training_file="file-1", seed=7, suffix="Polite",
    asked={"method": {"type": "kto", "kto": {"hyperparameters": {"n_epochs": 2, "beta": 0.3}}}},
)  # fmt: skip
FIELDS = {
    "id", "object", "model", "created_at", "finished_at", "fine_tuned_model", "organization_id", "result_files",
    "status", "training_file", "validation_file", "hyperparameters", "method", "trained_tokens", "error", "seed",
    "estimated_finish", "integrations", "metadata",
}  # fmt: skip


def test_a_job_has_every_field_and_echoes_what_was_asked() -> None:
    found = job(JOB, base="tidewell", tuned="")
    assert found.keys() >= FIELDS
    assert (found["object"], found["status"], found["created_at"]) == ("fine_tuning.job", "validating_files", 5)
    assert found["method"] == {
        "type": "kto",
        "kto": {
            "hyperparameters": {
                "n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto", "beta": 0.3,
            }
        },
    }  # fmt: skip
    assert found["hyperparameters"]["n_epochs"] == 2
    assert found["validation_file"] is found["error"] is found["finished_at"] is found["metadata"] is None


def test_a_model_is_named_only_when_it_is_served() -> None:
    done = replace(JOB, state=JobState.SUCCEEDED, finished_at=9.5, version=3, trained_tokens=11, result_files=("f",))
    found = job(done, base="tidewell", tuned="ft:x")
    assert (found["fine_tuned_model"], found["finished_at"], found["trained_tokens"]) == ("ft:x", 9, 11)
    assert found["result_files"] == ["f"]
    assert found["graftline"]["adapter"] == "polite:3"
    running = job(replace(done, state=JobState.RUNNING), base="tidewell", tuned="ft:x")
    assert running["fine_tuned_model"] is None


def test_a_failure_names_code_words_and_parameter() -> None:
    failed = replace(JOB, state=JobState.FAILED, error=JobError(code="gate_failed", message="no better"))
    found = job(failed, base="tidewell", tuned="", verdict={"passed": False})
    assert found["error"] == {"code": "gate_failed", "message": "no better", "param": None}
    assert found["graftline"]["gate"] == {"passed": False}
    blamed = replace(failed, error=JobError(code="c", message="m", param="training_file"))
    assert job(blamed, base="b", tuned="")["error"]["param"] == "training_file"


def test_a_job_that_came_by_another_way_is_shown_too() -> None:
    found = job(replace(JOB, asked={}, model=""), base="tidewell", tuned="")
    assert found["model"] == "tidewell"
    assert found["method"]["type"] == "supervised"


def test_events_and_checkpoints() -> None:
    told = event(JobEvent(id="e", job="j", at=2.7, message="m", kind="metrics", data={"train_loss": 0.5}))
    assert told == {
        "id": "e", "object": "fine_tuning.job.event", "created_at": 2, "level": "info", "message": "m",
        "type": "metrics", "data": {"train_loss": 0.5},
    }  # fmt: skip
    place = Checkpoint(id="c", job="j", at=3.0, step=20, metrics={"train_loss": 0.5, "other": 1.0}, folder="/x")
    assert checkpoint(place, "ft:a:b:c:d") == {
        "id": "c", "object": "fine_tuning.job.checkpoint", "created_at": 3, "step_number": 20,
        "fine_tuned_model_checkpoint": "ft:a:b:c:d:ckpt-step-20", "fine_tuning_job_id": "j",
        "metrics": {"train_loss": 0.5, "step": 20},
    }  # fmt: skip


def test_a_page_says_whether_there_is_more() -> None:
    rows = [{"id": str(n)} for n in range(3)]
    assert page(rows, 2) == {
        "object": "list", "data": rows[:2], "first_id": "0", "last_id": "1", "has_more": True,
    }  # fmt: skip
    assert page([], 2) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_verdict_that_is_not_whole_is_none() -> None:
    assert verdict('{"passed": true}') == {"passed": True}
    assert verdict('{"pas') is verdict("[]") is None


def test_a_file_has_every_field() -> None:
    one = File(
        id="file-1", tenant="acme", created_at=5.9, filename="r.jsonl", purpose="fine-tune", bytes=3, digest="d",
        state="error", details="line 1: not JSON",
    )  # fmt: skip
    assert {name: value for name, value in file(one).items() if name != "graftline"} == {
        "id": "file-1", "object": "file", "bytes": 3, "created_at": 5, "filename": "r.jsonl", "purpose": "fine-tune",
        "status": "error", "status_details": "line 1: not JSON", "expires_at": None,
    }  # fmt: skip
    assert listed([one], more=True)["last_id"] == "file-1"
