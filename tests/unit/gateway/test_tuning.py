"""What jobs find in an installation: its registry, its engines, its files."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.lifecycle import State
from adapters.registry import engine_name
from adapters.values import Draft, Version
from gateway.control import Control, open_control
from gateway.settings import Settings, SettingsError
from gateway.tuning.house import Installation
from gateway.tuning.running import make_launcher
from gateway.tuning.suites import suites_for
from training.evaluation.values import read as read_plan
from training.jobs.errors import JobRefused
from training.jobs.means import Place
from training.jobs.values import Job
from training.launchers.local import LocalLauncher
from training.launchers.ray import RayLauncher
from training.recipes.errors import BadRecipe
from training.recipes.recipe import build

NOW = 1_800_000_000.0
DOCUMENT = {"name": "support", "method": "sft", "data": {"train": "tidewell:corrected_fact", "held": "held.jsonl"}}
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    settings = Settings(home=tmp_path / "home")
    control = open_control(settings)
    yield Installation(control=control, settings=settings, clock=lambda: NOW)
    control.database.dispose()


def job(**changes: object) -> Job:
    fields: dict[str, object] = {"recipe": DOCUMENT, "name": "support", **changes}
    return Job(id="ftjob-1", tenant="acme", **fields)  # type: ignore[arg-type]


def published(control: Control, digest: str = DIGEST, *states: State) -> Version:
    """A version that training made, in the last of these states."""
    draft = Draft(
        name="support", digest=digest, rank=8, alpha=16.0, bytes=1, coverage="all", base_digest="b", created_by="job",
        note="", origin="training",
    )  # fmt: skip
    version = control.adapters.insert(draft)
    state = State.UPLOADED
    for to in states:
        version = control.adapters.move("support", version.number, state, to, who="test", why="test")
        state = to
    return version


def test_what_a_version_is_asked_follows_from_its_recipe_and_its_base() -> None:
    asked = {suite.name: suite.role for suite in suites_for(build(dict(DOCUMENT)), shop=True)}
    assert asked == {
        "held": "held", "facts": "forgetting", "faq": "forgetting", "safety": "safety", "over_refusal": "over_refusal",
        "stereotypes": "stereotype",
    }  # fmt: skip
    document = {**DOCUMENT, "data": {"train": "rows.jsonl"}}
    elsewhere = [suite.name for suite in suites_for(build(document), shop=False)]
    assert elsewhere == ["knowledge", "safety", "over_refusal", "stereotypes"]


def test_the_settings_say_where_trainings_run() -> None:
    near = LocalLauncher()
    assert make_launcher(Settings(), near) is near
    ray = make_launcher(Settings(launcher="ray", ray_url="http://127.0.0.1:8265", ray_gpus=1), near)
    assert isinstance(ray, RayLauncher)
    assert (ray.url, ray.gpus) == ("http://127.0.0.1:8265", 1)
    with pytest.raises(SettingsError, match="ray_url"):
        make_launcher(Settings(launcher="ray"), near)


@pytest.mark.slow
def test_a_job_is_ready_when_its_recipe_and_its_files_are(house: Installation) -> None:
    assert house.ready(job())
    with pytest.raises(BadRecipe):
        house.ready(job(recipe={**DOCUMENT, "method": "magic"}))
    with pytest.raises(JobRefused) as caught:
        house.ready(job(recipe={**DOCUMENT, "data": {"train": "file-9"}}))
    assert (caught.value.why, caught.value.param) == ("invalid_training_file", "training_file")


@pytest.mark.slow
def test_a_version_waits_is_held_serves_or_is_rejected(house: Installation) -> None:
    control, ours = house.control, job(version=1)
    version = published(control, DIGEST, State.CHECKED, State.PROBED)
    assert house.standing(ours).place is Place.WAITING
    control.fleet.hold("local", frozenset({engine_name(version)}))
    assert house.standing(ours).place is Place.HELD
    control.fleet.take_out("local", why="test", at=NOW)
    assert house.standing(ours).place is Place.WAITING
    control.fleet.bring_back("local")
    control.adapters.move("support", 1, State.PROBED, State.VERIFIED, who="test", why="test")
    assert house.standing(ours).place is Place.SERVING
    house.abandon(ours, "it was cancelled")  # what serves is no business of the job's any more
    assert house.standing(ours).place is Place.SERVING


@pytest.mark.slow
def test_what_an_ended_job_had_published_is_rejected_once(house: Installation) -> None:
    published(house.control, DIGEST, State.CHECKED)
    house.abandon(job(version=1), "it was cancelled")
    house.abandon(job(version=1), "it was cancelled")
    standing = house.standing(job(version=1))
    assert standing.place is Place.REJECTED
    assert "it was cancelled" in standing.why


@pytest.mark.slow
def test_a_plan_names_the_version_its_base_and_what_serves_now(house: Installation, tmp_path: Path) -> None:
    control = house.control
    live = published(control, "sha256:" + "cd" * 32, State.CHECKED, State.PROBED)
    control.adapters.admit("support", live.number, who="test", why="test")
    version = published(control, DIGEST, State.CHECKED, State.PROBED)
    control.fleet.hold("local", frozenset({engine_name(version), engine_name(live)}))
    (tmp_path / "recipe.yaml").write_text("name: support\nmethod: sft\ndata: {train: 'tidewell:corrected_fact'}\n")
    path = house.plan(job(version=version.number), tmp_path)
    plan = read_plan(path.read_bytes())
    assert (plan.models.candidate, plan.models.live) == (engine_name(version), engine_name(live))
    assert plan.models.base == control.base.name
    assert plan.engine.url.startswith("unix:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_recipe_that_starts_from_what_is_not_there_is_refused(house: Installation, tmp_path: Path) -> None:
    for start in ("live", "support:9", "no such name"):
        with pytest.raises(JobRefused) as caught:
            house.prepare(job(recipe={**DOCUMENT, "start_from": start}), tmp_path)
        assert caught.value.param == "model"
