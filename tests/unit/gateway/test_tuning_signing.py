"""Jobs in an installation that takes signed adapters only: what it trains it signs, or it trains nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.errors import BadSignature, DigestMismatch
from adapters.lifecycle import State
from adapters.signing import FILE, KeySignatures
from gateway.control import Control, open_control
from gateway.processes import run_worker, up
from gateway.settings import Settings, SettingsError
from gateway.tuning.house import Installation
from gateway.tuning.signing import check_signing, make_sign
from loadtests.stack import free_port
from tests.engines import tiny_adapter
from tests.unit.adapters.test_signing import keys
from tests.unit.training.jobs.places import RECIPE_DOCUMENT, Clock, FakeLauncher, FakeRun
from tests.unit.training.publishing.runs import RECORDED, ROWS, falling, record, steps, tell
from training.jobs.runner import Runner
from training.jobs.store import MemoryJobs
from training.jobs.values import Job, JobState, Phase

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Bench:
    """A worker over a real installation, whose trainings are done at once."""

    def __init__(self, settings: Settings) -> None:
        self.control: Control = open_control(settings)
        self.clock, self.jobs, self.launcher = Clock(), MemoryJobs(), FakeLauncher(finished)
        house = Installation(control=self.control, settings=settings, clock=self.clock)
        self.runner = Runner(
            self.jobs, house, settings.runs, "worker", launcher=self.launcher, near=FakeLauncher(), clock=self.clock,
            patience_s=None,
        )  # fmt: skip
        self.jobs.create(Job(id="ftjob-1", tenant="acme", name="support", recipe=RECIPE_DOCUMENT, created_at=1.0))

    def go(self, rounds: int = 12) -> Job:
        """So many rounds, far enough apart for what waits to be tried again."""
        for _ in range(rounds):
            self.clock.now += 6
            self.runner.beat()
            self.runner.step()
        return self.jobs.get("ftjob-1")

    def said(self) -> str:
        return "\n".join(event.message for event in self.jobs.events("ftjob-1", "", 500, oldest_first=True))

    def close(self) -> None:
        self.runner.close()
        self.control.database.dispose()


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.close()


def opened(benches: list[Bench], settings: Settings) -> Bench:
    benches.append(Bench(settings))
    return benches[-1]


def finished(run: FakeRun) -> None:
    """A training that came to its end, with an adapter that fits the base."""
    folder = run.spec.folder
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tiny_adapter(folder / "adapter", scale=0.01)
    (folder / "run.json").write_text(json.dumps(record(rows)))
    (folder / "parity.json").write_text(json.dumps({**RECORDED, "trained": None}))
    end = {"event": "finished", "folder": "x", "seconds": 1.0, "cpu_seconds": 1.0, "numbers": {}}
    tell(folder, steps(falling(40)), [end])
    run.code = 0


def demanding(home: Path, public: Path, key: Path | None) -> Settings:
    return Settings(home=home / "home", signing="required", signing_keys=(public,), signing_key=key)


def test_what_a_job_trains_is_signed_and_taken_where_only_signed_adapters_are(
    tmp_path: Path, benches: list[Bench]
) -> None:
    private, public = keys(tmp_path)
    bench = opened(benches, demanding(tmp_path, public, private))
    job = bench.go()
    assert (job.state, job.phase, job.version) == (JobState.RUNNING, Phase.EVALUATE, 1), bench.said()
    version = bench.control.adapters.get("support", 1)
    assert (version.state, version.origin) == (State.CHECKED, "training")
    (signed,) = bench.control.registry.evidence("support", 1, "signature")
    assert signed.body["by"].startswith("release.pub sha256:")
    kept = bench.control.registry.verify("support", 1)
    assert KeySignatures([public], "required").verify(kept) is not None
    weights = kept / "adapter_model.safetensors"
    weights.chmod(0o600)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadSignature):
        KeySignatures([public], "required").verify(kept)
    with pytest.raises(DigestMismatch):
        bench.control.registry.verify("support", 1)


def test_without_a_key_nothing_is_trained_that_nobody_would_take(tmp_path: Path, benches: list[Bench]) -> None:
    _, public = keys(tmp_path)
    bench = opened(benches, demanding(tmp_path, public, None))
    job = bench.go(3)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "no_signing_key")
    assert "signing_key" in job.error.message
    assert bench.launcher.runs == []


def test_a_key_that_is_away_is_waited_for_before_anything_is_trained(tmp_path: Path, benches: list[Bench]) -> None:
    private, public = keys(tmp_path)
    away = private.rename(tmp_path / "away.key")
    bench = opened(benches, demanding(tmp_path, public, private))
    job = bench.go(3)
    assert (job.state, job.phase, bench.launcher.runs) == (JobState.RUNNING, Phase.DATA, [])
    assert f"could not be signed with {private}" in bench.said()
    away.rename(private)
    assert bench.go().version == 1


def test_a_key_that_went_while_a_job_trained_costs_it_nothing(tmp_path: Path, benches: list[Bench]) -> None:
    private, public = keys(tmp_path)
    bench = opened(benches, demanding(tmp_path, public, private))
    away = tmp_path / "away.key"

    def leaving(run: FakeRun) -> None:
        finished(run)
        private.rename(away)

    bench.launcher.script = leaving
    job = bench.go()
    assert (job.state, job.phase, job.version) == (JobState.RUNNING, Phase.PUBLISH, None)
    away.rename(private)
    assert bench.go().version == 1
    assert len(bench.launcher.runs) == 1


@pytest.mark.parametrize("fault", ["missing", "junk", "foreign", "locked"])
def test_a_worker_does_not_start_with_a_key_that_cannot_sign(fault: str, tmp_path: Path) -> None:
    private, public = keys(tmp_path, password="secret" if fault == "locked" else "")
    said = {
        "missing": "No such file", "junk": "openssl", "foreign": "no signature of these files by a trusted key",
        "locked": "cannot sign",
    }[fault]  # fmt: skip
    if fault == "missing":
        private.unlink()
    elif fault == "junk":
        private.write_text("-----BEGIN NOTHING-----\n")
    elif fault == "foreign":
        public = keys(tmp_path, "other")[1]
    settings = demanding(tmp_path, public, private).model_copy(update={"port": free_port()})
    for start in (check_signing, run_worker, lambda found: up(found, {}, print)):
        with pytest.raises(SettingsError, match=r"signing_key = .*release\.key") as caught:
            start(settings)
        assert said in str(caught.value)
    assert not settings.home.exists(), "nothing was begun"
    check_signing(settings.model_copy(update={"jobs": False}))  # whoever trains nothing signs nothing


def test_a_key_without_the_library_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(SettingsError, match="graftline\\[signing\\]"):
        check_signing(demanding(tmp_path, public, private))


def test_a_key_signs_also_where_nobody_asks_for_it(tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    settings = Settings(signing_key=private)
    check_signing(settings)
    sign = make_sign(settings)
    assert sign is not None
    folder = tiny_adapter(tmp_path / "adapter")
    sign(folder)
    assert (folder / FILE).is_file()
    assert KeySignatures([public], "required").verify(folder) is not None
    assert make_sign(Settings()) is None
