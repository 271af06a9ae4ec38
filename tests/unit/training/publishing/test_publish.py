"""A finished run becomes one version, however often it is published, and says what it came from."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from adapters.checks.probe import Recorded
from adapters.errors import Reason
from adapters.lifecycle import State
from tests.unit.training.publishing.runs import RECORDED, House, evaluated, falling, steps, tell
from training.publishing.curves import read
from training.publishing.errors import CannotPublish
from training.publishing.lineage import FILE, source
from training.publishing.publish import publish
from training.publishing.result import COLUMNS, result, write_result


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_run_leaves_as_safetensors_with_its_lineage_and_waits_for_its_gate(house: House) -> None:
    run = house.run()
    version = publish(house.registry, run, name="polite", who="job", job="ftjob-1")
    assert (version.name, version.state, version.origin, version.source) == (
        "polite", State.CHECKED, "training", "job:ftjob-1",
    )  # fmt: skip
    folder = house.registry.verify("polite", 1)
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", FILE}
    told = json.loads((folder / FILE).read_bytes())
    assert told["dataset"]["file"].startswith("sha256:")
    assert (told["replay"], told["seed"], told["method"]) == ({"source": "tidewell:usual"}, 7, "dpo")
    assert told["curves"]["word"] == "converged"
    assert told["numbers"] == {"loss_last": 0.5}
    assert house.registry.waits(version)


def test_what_the_trainer_recorded_and_the_lineage_are_evidence(house: House) -> None:
    publish(house.registry, house.run(), name="polite", who="job", job="ftjob-1")
    (probe,) = house.registry.evidence("polite", 1, "probe")
    assert Recorded.from_document(probe.body) == Recorded.from_document(RECORDED)
    (training,) = house.registry.evidence("polite", 1, "training")
    assert (training.body["job"], training.body["seconds"]) == ("ftjob-1", 12.5)
    assert training.body["why"].startswith("The loss went from")


def test_publishing_again_gives_the_same_version_even_when_it_was_rejected(house: House) -> None:
    run = house.run()
    version = publish(house.registry, run, name="polite", who="job")
    assert publish(house.registry, run, name="polite", who="job") == version
    reason = Reason(code="gate_failed", field="x", found="y", allowed="z", advice="")
    house.registry.judged(version, [reason], who="gate", body={})
    assert publish(house.registry, run, name="polite", who="job").state is State.REJECTED
    assert len(house.store.list()) == 1


def test_a_worker_killed_before_it_noted_the_version_finds_it_by_its_bytes(house: House) -> None:
    run = house.run()
    version = publish(house.registry, run, name="polite", who="job", job="ftjob-1")
    (run / "published.json").unlink()
    assert publish(house.registry, run, name="polite", who="job", job="ftjob-1") == version


def test_the_same_training_in_another_folder_is_the_same_version(house: House) -> None:
    first = publish(house.registry, house.run("one"), name="polite", who="job", job="ftjob-1")
    again = publish(house.registry, house.run("two", seconds=99.0), name="polite", who="job", job="ftjob-2")
    assert again == first


def test_a_signature_is_made_once(house: House) -> None:
    signed: list[Path] = []

    def sign(folder: Path) -> None:
        signed.append(folder)
        (folder / "NOTICE").write_text(f"signed {len(signed)} times")

    run = house.run()
    version = publish(house.registry, run, name="polite", who="job", sign=sign)
    (run / "published.json").unlink()
    assert publish(house.registry, run, name="polite", who="job", sign=sign) == version
    assert len(signed) == 1


def test_files_that_do_not_say_what_was_trained_stay(house: House) -> None:
    run = house.run()
    apart = {"plain": True, "passed": False, "mean": 1.0, "p99": 2.0, "most": 3.0, "logprobs": []}
    (run / "parity.json").write_text(json.dumps({**RECORDED, "trained": apart}))
    with pytest.raises(CannotPublish, match="were not saved as they were trained"):
        publish(house.registry, run, name="polite", who="job")
    (run / "parity.json").write_text(json.dumps({**RECORDED, "trained": {**apart, "plain": False}}))
    assert publish(house.registry, run, name="polite", who="job").number == 1


def test_without_a_recording_a_prober_looks(house: House) -> None:
    run = house.run()
    (run / "parity.json").unlink()
    publish(house.registry, run, name="polite", who="job")
    assert house.registry.evidence("polite", 1, "probe") == ()


@pytest.mark.parametrize("gone", ["run.json", "adapter/adapter_model.safetensors"])
def test_a_run_that_is_not_finished_cannot_leave(house: House, gone: str) -> None:
    run = house.run()
    (run / gone).unlink()
    with pytest.raises(CannotPublish):
        publish(house.registry, run, name="polite", who="job")
    assert house.store.list() == ()


def test_a_reward_model_and_a_run_of_another_program_cannot_leave(house: House) -> None:
    with pytest.raises(CannotPublish, match="scores and no words"):
        publish(house.registry, house.run("reward", chosen={"method": "reward"}), name="judge", who="job")
    run = house.run("odd")
    (run / "run.json").write_text('{"recipe": {}}')
    with pytest.raises(CannotPublish, match="lacks base"):
        publish(house.registry, run, name="odd", who="job")


def test_the_result_file_has_a_line_for_each_step(tmp_path: Path) -> None:
    lines = steps(falling(4), mean_token_accuracy=0.5)
    tell(tmp_path, lines, evaluated({2: 0.75, 9: 0.5}))
    rows = list(csv.reader((write_result(tmp_path)).read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "4", "9"]
    assert rows[2][2:4] == ["0.5", "0.75"]
    assert rows[5] == ["9", "", "", "0.5", ""]
    assert result(read(tmp_path / "nowhere")) == ",".join(COLUMNS) + "\n"


def test_rows_that_are_no_file_keep_their_name(tmp_path: Path) -> None:
    assert source("tidewell:usual") == {"source": "tidewell:usual"}
