"""`/v1/files` and `/v1/fine_tuning/jobs` by OpenAI's SDK; the worker runs no jobs here, so rows are moved by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from gateway.control import Control, open_control
from gateway.settings import load
from loadtests.stack import stack
from tests.e2e.houses import BASE, House, eventually, open_house
from tests.engines import tiny_adapter
from training.jobs.values import Checkpoint, Job, JobError, JobEvent, JobState, Phase

pytestmark = pytest.mark.slow
FILE_BYTES_MAX = 1 << 20
SFT = {"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At nine."}]}
PAIR = {"prompt": "When?", "chosen": "At nine.", "rejected": "No."}


@pytest.fixture(scope="module")
def idle() -> Iterator[House]:
    """A gateway, an engine and a worker that leaves jobs alone."""
    with stack(jobs="false", file_bytes_max=str(FILE_BYTES_MAX), tenant_files_bytes_max=str(4 << 20)) as running:
        yield open_house(running, engines=1)


@pytest.fixture(scope="module")
def control(idle: House) -> Iterator[Control]:
    """The same rows, as a worker has them."""
    found = open_control(load(idle.running.env))
    yield found
    found.database.dispose()


@pytest.fixture
def sdk(idle: House) -> Iterator[openai.OpenAI]:
    with client_of(idle) as client:
        yield client


def client_of(house: House, key: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{house.url}/v1", api_key=key or house.key, max_retries=0)


def uploaded(sdk: openai.OpenAI, *rows: Any, name: str = "rows.jsonl", purpose: Any = "fine-tune") -> Any:
    data = b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows or (SFT,))
    return sdk.files.create(file=(name, data), purpose=purpose)


def created(sdk: openai.OpenAI, **fields: Any) -> Any:
    fields.setdefault("training_file", uploaded(sdk).id)
    return sdk.fine_tuning.jobs.create(model=BASE, **fields)


def status(job: FineTuningJob) -> str:
    """OpenAI's API has states that its SDK does not know yet."""
    return job.status


def moved(control: Control, id_: str, state: JobState, expected: JobState, **fields: Any) -> Job:
    return control.jobs.move(id_, state, expected=expected, now=time.time(), **fields)


def test_a_file_is_kept_shown_read_back_and_deleted(sdk: openai.OpenAI) -> None:
    file = uploaded(sdk, SFT, SFT)
    assert (file.object, file.purpose, file.filename, file.status) == ("file", "fine-tune", "rows.jsonl", "processed")
    assert sdk.files.wait_for_processing(file.id).to_dict() == file.to_dict() == sdk.files.retrieve(file.id).to_dict()
    data = sdk.files.content(file.id).content
    assert len(data) == file.bytes
    assert data == 2 * (json.dumps(SFT).encode() + b"\n")
    deleted = sdk.files.delete(file.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (file.id, "file", True)
    for ask in (sdk.files.retrieve, sdk.files.content, sdk.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(file.id)
        assert caught.value.code == "file_not_found"


def test_bad_lines_are_named_and_such_a_file_makes_no_job(sdk: openai.OpenAI) -> None:
    file = uploaded(sdk, SFT, b"{\n", name="mine.jsonl")
    assert sdk.files.wait_for_processing(file.id).status == "error"
    assert file.status_details is not None
    assert "line 2: not JSON" in file.status_details
    with pytest.raises(openai.BadRequestError) as caught:
        created(sdk, training_file=file.id)
    assert (caught.value.code, caught.value.param) == ("invalid_training_file", "training_file")
    assert "mine.jsonl has 1 problem" in caught.value.message
    assert "line 2" in caught.value.message


def test_files_are_listed_in_pages_by_purpose_and_order(sdk: openai.OpenAI) -> None:
    made = [uploaded(sdk, {"item": {"n": n}}, purpose="evals").id for n in range(3)]
    assert [each.id for each in sdk.files.list(purpose="evals", limit=2)] == made[::-1]  # two pages
    assert [each.id for each in sdk.files.list(purpose="evals", order="asc", limit=1)] == made
    assert sdk.files.list(purpose="evals", limit=2).has_more
    assert not sdk.files.list(purpose="batch").data
    with pytest.raises(openai.BadRequestError):
        sdk.files.list(after="file-none")


def test_a_file_can_expire(sdk: openai.OpenAI) -> None:
    kept: Any = {"anchor": "created_at", "seconds": 3600}
    file = sdk.files.create(file=("r.jsonl", json.dumps(SFT).encode()), purpose="fine-tune", expires_after=kept)
    assert file.expires_at == file.created_at + 3600
    kept["seconds"] = 5
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.files.create(file=("r.jsonl", b"{}"), purpose="fine-tune", expires_after=kept)
    assert caught.value.param == "expires_after[seconds]"


def test_what_cannot_be_kept_is_refused_in_words(sdk: openai.OpenAI, idle: House) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        uploaded(sdk, purpose="batch")
    assert (caught.value.code, caught.value.param) == ("bad_upload", "purpose")
    with pytest.raises(openai.APIStatusError) as large:
        uploaded(sdk, b"x" * (FILE_BYTES_MAX + 1), purpose="user_data")
    assert large.value.status_code == 413
    with idle.client() as client:
        answer = client.post("/v1/files", json={"purpose": "fine-tune"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
        answer = client.post("/v1/files", files={"purpose": (None, "fine-tune")})
        assert answer.json()["error"]["param"] == "file"


def test_a_tenant_s_files_may_not_grow_without_end(idle: House) -> None:
    secret, _ = idle.new_key(tenant="hoarder", roles=["engineer"])
    sdk = client_of(idle, secret)
    for _ in range(4):
        uploaded(sdk, b"x" * (FILE_BYTES_MAX - 1), purpose="user_data")
    with pytest.raises(openai.BadRequestError) as caught:
        uploaded(sdk, b"x" * (FILE_BYTES_MAX - 1), purpose="user_data")
    assert caught.value.code == "file_storage_full"


def test_a_job_is_created_shown_and_listed(sdk: openai.OpenAI, control: Control) -> None:
    held = uploaded(sdk)
    hyper: Any = {"n_epochs": 2, "batch_size": "auto", "rank": 4}
    job = created(
        sdk, validation_file=held.id, suffix="Shown", seed=11, metadata={"team": "shown"},
        method={"type": "supervised", "supervised": {"hyperparameters": hyper}},
    )  # fmt: skip
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "validating_files", BASE, 11)
    assert job.method.supervised.hyperparameters.n_epochs == 2
    assert job.method.supervised.hyperparameters.batch_size == "auto"
    assert job.hyperparameters.learning_rate_multiplier == "auto"
    assert job.validation_file == held.id
    assert job.organization_id == "default"
    assert job.fine_tuned_model is job.finished_at is job.error is None
    assert sdk.fine_tuning.jobs.retrieve(job.id).to_dict() == job.to_dict()
    row = control.jobs.get(job.id)
    assert row.recipe["adapter"] == {"rank_max": 16, "rank": 4}
    other = created(sdk, metadata={"team": "other"})
    listed = [each.id for each in sdk.fine_tuning.jobs.list(limit=1)]  # a page each
    assert listed[:2] == [other.id, job.id]
    assert [each.id for each in sdk.fine_tuning.jobs.list(extra_query={"metadata[team]": "shown"})] == [job.id]


@pytest.mark.parametrize(
    ("type_", "row"), [("dpo", PAIR), ("orpo", PAIR), ("kto", {"prompt": "a", "completion": "b", "label": True})]
)
def test_methods_that_openai_lacks_pass_the_sdk_both_ways(sdk: openai.OpenAI, type_: str, row: Any) -> None:
    method: Any = {"type": type_, type_: {"hyperparameters": {"beta": 0.2}}}
    job = created(sdk, training_file=uploaded(sdk, row).id, method=method)
    assert job.method.type == type_
    assert job.method.to_dict()[type_]["hyperparameters"]["beta"] == 0.2


def test_an_integration_is_echoed_and_reaches_the_recipe(sdk: openai.OpenAI, control: Control) -> None:
    place: dict[str, Any] = {"project": "shop", "entity": "ours", "tags": ["kind", "small"]}
    wandb: Any = {"type": "wandb", "wandb": place}
    job = created(sdk, integrations=[wandb])
    (echoed,) = job.integrations
    assert echoed.to_dict() == wandb
    assert control.jobs.get(job.id).recipe["wandb"] == {**place, "name": job.id}
    long: Any = {"type": "wandb", "wandb": {"project": "shop", "tags": ["x" * 65]}}
    for refused in ([wandb, wandb], [long], [{"type": "wandb", "wandb": {}}], [{"type": "comet"}]):
        with pytest.raises(openai.BadRequestError) as caught:
            created(sdk, integrations=refused)
        assert str(caught.value.param).startswith("integrations")


def test_all_problems_of_a_request_come_together(sdk: openai.OpenAI) -> None:
    method: Any = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": "many", "colour": "red"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        created(sdk, method=method)
    for words in ("learns from rows for dpo", "n_epochs", "colour: unknown"):
        assert words in caught.value.message
    assert caught.value.code == "invalid_job"
    for fields, param in (
        ({"extra_body": {"colour": 1}}, "colour"),
        ({"seed": -1}, "seed"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"suffix": BASE}, "suffix"),
        ({"training_file": "file-none"}, "training_file"),
        ({"validation_file": "file-none"}, "validation_file"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            created(sdk, **fields)
        assert refused.value.param == param
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.fine_tuning.jobs.create(model="nobody", training_file="file-none")
    assert unknown.value.code == "model_not_found"


def test_what_an_sdk_sends_again_makes_no_second_job(sdk: openai.OpenAI) -> None:
    file = uploaded(sdk).id
    first = created(sdk, training_file=file, suffix="again")
    again = created(sdk, training_file=file, suffix="again", extra_headers={"x-stainless-retry-count": "1"})
    assert again.id == first.id
    meant = created(sdk, training_file=file, suffix="again")
    assert meant.id != first.id
    keyed = [
        created(sdk, training_file=file, suffix="again", extra_headers={"Idempotency-Key": "one"}) for _ in range(2)
    ]
    assert keyed[0].id == keyed[1].id
    with pytest.raises(openai.BadRequestError) as caught:
        created(sdk, training_file=file, suffix="changed", extra_headers={"Idempotency-Key": "one"})
    assert caught.value.code == "idempotency_key_reused"


def test_a_job_is_paused_resumed_and_cancelled(sdk: openai.OpenAI, control: Control) -> None:
    job = created(sdk)
    with pytest.raises(openai.ConflictError) as caught:
        sdk.fine_tuning.jobs.pause(job.id)
    assert caught.value.code == "job_conflict"
    assert caught.value.response.headers["x-should-retry"] == "false"
    moved(control, job.id, JobState.QUEUED, JobState.VALIDATING)
    assert status(sdk.fine_tuning.jobs.pause(job.id)) == "paused"
    assert status(sdk.fine_tuning.jobs.pause(job.id)) == "paused"
    assert status(sdk.fine_tuning.jobs.resume(job.id)) == "queued"
    moved(control, job.id, JobState.RUNNING, JobState.QUEUED)
    assert status(sdk.fine_tuning.jobs.pause(job.id)) == "pausing"
    moved(control, job.id, JobState.PAUSED, JobState.PAUSING)
    assert status(sdk.fine_tuning.jobs.resume(job.id)) == "queued"
    assert status(sdk.fine_tuning.jobs.cancel(job.id)) == "cancelled"
    assert status(sdk.fine_tuning.jobs.cancel(job.id)) == "cancelled"
    with pytest.raises(openai.ConflictError):
        sdk.fine_tuning.jobs.resume(job.id)


def test_events_and_checkpoints_come_newest_first_in_pages(sdk: openai.OpenAI, control: Control) -> None:
    job = created(sdk, suffix="told")
    now = time.time()
    control.jobs.say(
        JobEvent(id=f"ftevent-{n}", job=job.id, at=now, message=f"Step {n}", kind="metrics", data={"train_loss": n / 4})
        for n in range(5)
    )
    found = list(sdk.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [each.message for each in found] == [f"Step {n}" for n in (4, 3, 2, 1, 0)]
    assert (found[0].object, found[0].type, found[0].data) == ("fine_tuning.job.event", "metrics", {"train_loss": 1.0})
    for step in (20, 40):
        control.jobs.checkpoint(
            Checkpoint(id=f"ftckpt-{step}", job=job.id, at=now, step=step, metrics={"train_loss": 0.5}, folder="/x")
        )
    places = list(sdk.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [each.step_number for each in places] == [40, 20]
    assert places[0].metrics.train_loss == 0.5
    assert places[0].fine_tuning_job_id == job.id
    assert places[0].fine_tuned_model_checkpoint.startswith(f"ft:{BASE}:default:told:")


def test_what_a_job_has_trained_is_served_by_its_name_before_it_has_succeeded(
    sdk: openai.OpenAI, idle: House, control: Control, tmp_path: Path
) -> None:
    job = created(sdk, suffix="served")
    folder = tiny_adapter(tmp_path / "adapter", seed=77)
    version = control.registry.register(
        folder, name="served", who=f"default/{job.id}", origin="training", unprobed=True
    )
    short = job.id.removeprefix("ftjob-")
    name = f"ft:{BASE}:default:served:{short}"
    assert idle.chat(model=name).status_code == 404
    control.registry.judged(version, (), who=f"default/{job.id}", body={})
    eventually(lambda: idle.chat(model=name).status_code == 200, timeout_s=20)
    moved(control, job.id, JobState.QUEUED, JobState.VALIDATING)
    moved(control, job.id, JobState.RUNNING, JobState.QUEUED, phase=Phase.DECIDE, version=version.number)
    assert sdk.fine_tuning.jobs.retrieve(job.id).fine_tuned_model is None
    moved(control, job.id, JobState.SUCCEEDED, JobState.RUNNING, trained_tokens=9)
    done = eventually(lambda: [each for each in [sdk.fine_tuning.jobs.retrieve(job.id)] if each.finished_at])[0]
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("succeeded", name, 9)
    answer = sdk.chat.completions.create(model=name, messages=[{"role": "user", "content": "hello"}])
    assert answer.model == name
    assert name in [each.id for each in sdk.models.list()]
    assert sdk.models.retrieve(name).id == name
    assert sdk.models.delete(name).deleted
    eventually(lambda: idle.chat(model=name).status_code == 404)


def test_a_failed_job_says_why_with_what_the_gate_found(sdk: openai.OpenAI, control: Control, idle: House) -> None:
    job = created(sdk)
    run = idle.running.home / "runs" / job.id
    run.mkdir(parents=True)
    (run / "verdict.json").write_text(json.dumps({"passed": False, "reasons": ["no better"]}))
    moved(control, job.id, JobState.QUEUED, JobState.VALIDATING)
    error = JobError(code="gate_failed", message="no better")
    moved(control, job.id, JobState.RUNNING, JobState.QUEUED)
    moved(control, job.id, JobState.FAILED, JobState.RUNNING, error=error)
    found = sdk.fine_tuning.jobs.retrieve(job.id)
    assert found.error is not None
    assert (found.status, found.error.code, found.error.message) == ("failed", "gate_failed", "no better")
    assert found.to_dict()["graftline"]["gate"]["reasons"] == ["no better"]  # type: ignore[index]


def test_another_tenant_learns_nothing_and_users_may_not_train(sdk: openai.OpenAI, idle: House) -> None:
    file, job = uploaded(sdk), created(sdk)
    secret, _ = idle.new_key(tenant="other", roles=["engineer"])
    theirs = client_of(idle, secret)
    asks: list[Any] = [
        lambda: theirs.files.retrieve(file.id),
        lambda: theirs.files.content(file.id),
        lambda: theirs.files.delete(file.id),
        lambda: theirs.fine_tuning.jobs.retrieve(job.id),
        lambda: theirs.fine_tuning.jobs.cancel(job.id),
        lambda: theirs.fine_tuning.jobs.list_events(job.id),
        lambda: theirs.fine_tuning.jobs.checkpoints.list(job.id),
        lambda: theirs.fine_tuning.jobs.list(after=job.id),
    ]
    for ask in asks:
        with pytest.raises(openai.NotFoundError):
            ask()
    assert theirs.files.list().data == []
    assert theirs.fine_tuning.jobs.list().data == []
    with pytest.raises(openai.BadRequestError):
        theirs.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    assert sdk.files.retrieve(file.id).to_dict() == file.to_dict()
    user, _ = idle.new_key(roles=["user"])
    for ask in (client_of(idle, user).files.list, client_of(idle, user).fine_tuning.jobs.list):
        with pytest.raises(openai.PermissionDeniedError):
            ask()
