"""From a request for a job to its row: made once however often it is sent, under a name that its key may use."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.access.keys import mint
from gateway.enlisting import RETRY_S, Desk, Sent, enlist, slug
from gateway.errors import BadField
from gateway.values import Target
from training.files.errors import BadJobRequest, BadTrainingFile
from training.files.intake import Upload, take
from training.files.recipes import Server
from training.files.shelf import Shelf
from training.files.sources import Shelves
from training.files.store import MemoryFiles
from training.jobs.store import MemoryJobs
from training.jobs.values import Job, JobState
from training.recipes.recipe import build

NOW = 1_800_000_000.0
BASE = Target(engine_name="tidewell")
SUPPORT = Target(engine_name="support@abc", adapter="support:7", digest="sha256:abc")
SFT = {"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At nine."}]}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    shelves = Shelves(files=MemoryFiles(), shelf=Shelf(tmp_path / "files"), datasets=tmp_path / "datasets")
    return Desk(jobs=MemoryJobs(), shelves=shelves, base="tidewell", server=Server(rank_max=16, parameters=2_000_000))


def sent(*models: str, tenant: str = "acme", retry: int = 0, key: str = "") -> Sent:
    who = mint(tenant=tenant, name="ann", roles=["engineer"], now=1.0, models=models or None)[1]
    return Sent(key=who, retry_count=retry, idempotency_key=key)


def asked(desk: Desk, **fields: Any) -> dict[str, Any]:
    """A request with a file of its own."""
    data = io.BytesIO(json.dumps(SFT).encode())
    said = Upload(filename="rows.jsonl", purpose="fine-tune")
    found = take(
        desk.shelves.files, desk.shelves.shelf, said, data, tenant="acme", owner="", now=NOW, bytes_max=1 << 20
    )
    return {"model": "tidewell", "training_file": found.id, **fields}


def test_a_request_becomes_a_job_that_holds_all_of_it(desk: Desk) -> None:
    body = asked(
        desk, suffix="More Polite!", seed=5, metadata={"k": "v"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "rank": 4}}},
    )  # fmt: skip
    job = enlist(desk, sent(), body, BASE, now=NOW)
    assert (job.tenant, job.owner, job.state, job.created_at) == ("acme", "acme/ann", JobState.VALIDATING, NOW)
    assert (job.name, job.suffix, job.seed, job.metadata) == ("more-polite", "More Polite!", 5, {"k": "v"})
    assert (job.model, job.training_file, job.validation_file) == ("tidewell", body["training_file"], "")
    assert job.asked == body
    recipe = build(dict(job.recipe))
    assert (recipe.name, recipe.seed, recipe.optim.epochs, recipe.adapter.rank) == ("more-polite", 5, 2, 4)
    assert desk.jobs.get(job.id) == job


def test_without_a_suffix_the_job_s_id_names_the_adapter(desk: Desk) -> None:
    job = enlist(desk, sent(), asked(desk), BASE, now=NOW)
    assert job.name == f"ft-{job.id.removeprefix('ftjob-')}"
    assert job.seed != enlist(desk, sent(), asked(desk), BASE, now=NOW).seed


def test_training_goes_on_from_the_version_that_the_model_means(desk: Desk) -> None:
    job = enlist(desk, sent(), asked(desk, model="support"), SUPPORT, now=NOW)
    assert job.name == "support"
    assert job.recipe["start_from"] == "support:7"
    assert job.model == "support"
    other = enlist(desk, sent(), asked(desk, model="support", suffix="kind"), SUPPORT, now=NOW)
    assert (other.name, other.recipe["start_from"]) == ("kind", "support:7")


@pytest.mark.parametrize(
    ("suffix", "name"),
    [("Polite v2", "polite-v2"), ("süß", "s"), ("--a--", "a"), ("a" * 64, "a" * 63), ("🙂", ""), ("a_b.c", "a_b.c")],
)
def test_a_suffix_becomes_a_name_of_the_registry(suffix: str, name: str) -> None:
    assert slug(suffix) == name


def test_a_name_that_cannot_be_or_may_not_be_used_is_refused(desk: Desk) -> None:
    with pytest.raises(BadField, match="the name of the base model") as caught:
        enlist(desk, sent(), asked(desk, suffix="Tidewell"), BASE, now=NOW)
    assert caught.value.param == "suffix"
    with pytest.raises(BadField, match="may not use a model 'polite'"):
        enlist(desk, sent("tidewell"), asked(desk, suffix="polite"), BASE, now=NOW)
    assert enlist(desk, sent("tidewell", "polite"), asked(desk, suffix="polite"), BASE, now=NOW).name == "polite"


def test_what_an_sdk_sends_again_makes_no_second_job(desk: Desk) -> None:
    body = asked(desk)
    first = enlist(desk, sent(), body, BASE, now=NOW)
    again = [enlist(desk, sent(retry=retry), body, BASE, now=NOW + 9) for retry in (1, 2)]
    assert again == [first, first]
    assert len(desk.jobs.list("acme")) == 1


def test_a_retry_that_comes_before_its_first_sending_was_kept_makes_one_job(desk: Desk) -> None:
    body = asked(desk)
    retried = enlist(desk, sent(retry=1), body, BASE, now=NOW)
    late = Desk(jobs=_Blind(desk.jobs), shelves=desk.shelves, base=desk.base, server=desk.server)
    assert enlist(late, sent(), body, BASE, now=NOW + 1) == retried


class _Blind(MemoryJobs):
    """What a request sees that looked before the other one was kept."""

    def __init__(self, jobs: Any) -> None:
        super().__init__()
        self._jobs = jobs._jobs

    def list(self, *_: Any, **__: Any) -> tuple[Job, ...]:
        return ()


def test_the_same_request_on_purpose_makes_another_job(desk: Desk) -> None:
    body = asked(desk)
    jobs = [enlist(desk, sent(), body, BASE, now=NOW + n) for n in range(3)]
    assert len({job.id for job in jobs}) == 3
    assert enlist(desk, sent(retry=1), body, BASE, now=NOW + 4).id == jobs[-1].id


def test_a_retry_long_after_is_a_job_of_its_own_and_so_is_another_tenant_s(desk: Desk) -> None:
    body = asked(desk, training_file="file-x")
    body["training_file"] = asked(desk)["training_file"]
    first = enlist(desk, sent(), body, BASE, now=NOW)
    assert enlist(desk, sent(retry=1), body, BASE, now=NOW + RETRY_S + 1).id != first.id
    with pytest.raises(BadTrainingFile):
        enlist(desk, sent(tenant="other", retry=1), body, BASE, now=NOW)


def test_an_idempotency_key_makes_one_job_of_one_request(desk: Desk) -> None:
    body = asked(desk)
    first = enlist(desk, sent(key="k1"), body, BASE, now=NOW)
    assert enlist(desk, sent(key="k1"), body, BASE, now=NOW + 10 * RETRY_S) == first
    assert enlist(desk, sent(key="k2"), body, BASE, now=NOW).id != first.id
    with pytest.raises(BadField, match="another request") as caught:
        enlist(desk, sent(key="k1"), {**body, "suffix": "x"}, BASE, now=NOW)
    assert caught.value.code == "idempotency_key_reused"


def test_a_job_that_has_moved_on_is_still_the_one(desk: Desk) -> None:
    body = asked(desk)
    first = enlist(desk, sent(), body, BASE, now=NOW)
    moved = desk.jobs.move(first.id, JobState.QUEUED, expected=JobState.VALIDATING, now=NOW)
    assert enlist(desk, sent(retry=1), body, BASE, now=NOW) == moved
    assert moved == replace(first, state=JobState.QUEUED)


def test_problems_of_the_request_make_no_job(desk: Desk) -> None:
    for body, error in (
        (asked(desk, validation_file="file-none"), BadTrainingFile),
        (asked(desk, method={"type": "dpo"}), BadJobRequest),
        (asked(desk, method={"type": "dpo", "dpo": [1]}), BadField),
        (asked(desk, method={"type": "dpo", "supervised": {}}), BadField),
        (asked(desk, hyperparameters={"replay": "file-none"}), BadTrainingFile),
        (asked(desk, method={"type": "supervised", "supervised": {"hyperparameters": 3}}), BadJobRequest),
    ):
        with pytest.raises(error):
            enlist(desk, sent(), body, BASE, now=NOW)
    assert desk.jobs.list("acme") == ()


def test_a_run_stands_on_wandb_where_the_request_says_under_the_job_s_id_or_a_name(desk: Desk) -> None:
    place = {"project": "shop", "entity": "ours", "tags": ["kind"]}
    job = enlist(desk, sent(), asked(desk, integrations=[{"type": "wandb", "wandb": place}]), BASE, now=NOW)
    assert job.recipe["report"] == ["wandb"]
    assert job.recipe["wandb"] == {**place, "name": job.id}
    named = {**place, "name": "night run"}
    body = asked(desk, integrations=[{"type": "wandb", "wandb": named}])
    assert enlist(desk, sent(), body, BASE, now=NOW).recipe["wandb"] == named
    assert "wandb" not in enlist(desk, sent(), asked(desk), BASE, now=NOW).recipe
