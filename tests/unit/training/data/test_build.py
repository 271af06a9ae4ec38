"""A build from records in memory to Parquet: what is kept, what left and why, and that its name can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from monitoring.records.events import Exposure, Feedback, Inference
from tests.unit.training.data.made import BEGAN_S, Letters, id_, inference, stored, word
from training.data.build import Built, Place, build
from training.data.errors import CannotWrite, DatasetDamaged, DatasetNotFound, NothingLeft
from training.data.manifest import FILE
from training.data.rules import Rules

pytest.importorskip("pyarrow")
from training.data.parquet import find, load, rows

pytestmark = pytest.mark.slow

WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jolly", "kayak"]


def sentence(number: int) -> str:
    return " ".join(WORDS[(number * prime + number // prime) % 11] for prime in (3, 5, 7, 13, 17, 19, 23, 29, 31, 37))


def thumbs(count: int = 40) -> list[Inference | Feedback]:
    asked = [inference(n, asked=sentence(n), answer=sentence(n + 1000), user=f"user-{n // 2}") for n in range(count)]
    return [*asked, *(word(n, n, value=1.0 if n % 2 else -1.0) for n in range(count))]


def made(root: Path, *events: Any, kind: Any = "kto", place: dict[str, Any] | None = None, **more: Any) -> Built:
    taken = {name: more.pop(name) for name in ("opted_out", "experiments", "window") if name in more}
    at = Place(root=root, template=Letters(), base="sha256:base", **(place or {}))
    return build(stored(*events), Rules(kind=kind, **more), at, **taken)


def test_every_record_is_a_row_or_is_counted_under_a_reason(tmp_path: Path) -> None:
    events = [
        *thumbs(),
        inference(100, asked=sentence(100)),
        inference(101, asked=sentence(101), incomplete=True),
        word(101, 101, value=1.0),
        inference(102, asked="My mail is ann@example.com, why?", answer=sentence(102)),
        word(102, 102, value=1.0),
    ]
    built = made(tmp_path, *events)
    kept = sum(part.rows for part in built.manifest.parts.values())
    assert built.manifest.seen["records"] == 43
    assert kept + sum(built.manifest.left.values()) == 43
    assert {"no_feedback": 1, "incomplete": 1, "personal_data": 1}.items() <= built.manifest.left.items()
    assert built.report.left["incomplete"] == (id_(101),)


def test_rows_keep_the_ids_of_what_they_were_made_from(tmp_path: Path) -> None:
    built = made(tmp_path, *thumbs())
    train = list(rows(built.folder, "train"))
    number = next(n for n in range(40) if id_(n) == train[0]["inferences"][0])
    assert train[0]["words"] == [word(number, number).id]
    assert train[0]["prompt"] == [{"role": "user", "content": sentence(number)}]
    assert train[0]["completion"] == [{"role": "assistant", "content": sentence(number + 1000)}]
    assert train[0]["label"] == bool(number % 2)
    assert train[0]["policy"] == "sha256:three"
    assert built.manifest.policies == {"sha256:three": 40 - sum(built.manifest.left.values())}


def test_the_same_input_gives_the_same_name_and_another_rule_another(tmp_path: Path) -> None:
    one, again, other = (made(tmp_path, *thumbs(), seed=seed) for seed in (0, 0, 1))
    assert one.digest == again.digest != other.digest
    assert one.folder.name == one.digest.removeprefix("sha256:")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({one.folder.name, other.folder.name})
    assert load(one.folder, verify=True) == one.manifest
    assert find(tmp_path, one.digest[:12]) == one.folder


def test_rows_that_were_changed_are_noticed(tmp_path: Path) -> None:
    one, other = (made(tmp_path, *thumbs(count)) for count in (40, 44))
    (one.folder / "train.parquet").write_bytes((other.folder / "train.parquet").read_bytes())
    with pytest.raises(DatasetDamaged, match=r"train\.parquet"):
        load(one.folder, verify=True)
    (one.folder / FILE).write_text("{}")
    with pytest.raises(DatasetDamaged):
        load(one.folder)
    with pytest.raises(DatasetNotFound):
        find(tmp_path, "sha256:0")


def test_opted_out_users_and_units_of_running_experiments_leave(tmp_path: Path) -> None:
    shown = Exposure(
        id=id_(5_000_000), at=BEGAN_S, tenant="acme", experiment="e1", unit="user-3", unit_kind="user", arm="b"
    )
    built = made(tmp_path, *thumbs(), shown, opted_out=["user-1", "rater-9"], experiments=["e1"])
    assert built.manifest.left["opted_out"] == 3
    assert built.manifest.left["in_experiment"] == 2


def test_feedback_on_a_conversation_counts_less_and_only_where_an_answer_has_none_of_its_own(tmp_path: Path) -> None:
    events = [
        *thumbs(),
        inference(200, asked=sentence(200), answer=sentence(1), conversation="c"),
        inference(201, asked=sentence(201), answer=sentence(2), conversation="c"),
        word(201, 201, value=1.0),
        word(202, "c", value=-1.0, target_kind="conversation"),
    ]
    built = made(tmp_path, *events, evaluation=0.0)
    by_id = {row["inferences"][0]: row for row in rows(built.folder, "train")}
    assert (by_id[id_(200)]["label"], by_id[id_(200)]["weight"]) == (False, 0.25)
    assert (by_id[id_(201)]["label"], by_id[id_(201)]["weight"]) == (True, 1.0)


def test_stars_become_pairs_within_one_question_each_less_its_raters_mean(tmp_path: Path) -> None:
    answers = [inference(n, asked="Which one?", answer=sentence(n)) for n in range(4)]
    lonely = inference(9, asked="Only one?", answer=sentence(9))
    strict = [word(n, n, "scalar", value, name="stars", rater="strict") for n, value in ((0, 1.0), (1, 3.0))]
    kind = [word(n, n, "scalar", value, name="stars", rater="kind") for n, value in ((2, 4.0), (3, 5.0))]
    alone = word(9, 9, "scalar", 5.0, name="stars", rater="kind")
    built = made(tmp_path, *answers, lonely, *strict, *kind, alone, kind="dpo", evaluation=0.0, pairs_per_prompt=1)
    (pair,) = rows(built.folder, "train")
    assert pair["rejected"][0]["content"] == sentence(0)
    assert pair["origin"] == "stars"
    assert set(pair["inferences"]) >= {id_(0)}
    assert built.manifest.left == {"no_partner": 3}


def test_an_unsafe_answer_is_never_wanted_but_may_be_unwanted(tmp_path: Path) -> None:
    threat = "I will find you and that is all."
    events = [
        *thumbs(),
        inference(300, asked=sentence(300), answer=threat),
        word(300, 300, value=1.0),
        inference(301, asked=sentence(301), answer=threat),
        word(301, 301, value=-1.0),
    ]
    built = made(tmp_path, *events, evaluation=0.0)
    assert built.manifest.left["unsafe"] == 1
    assert id_(301) in {row["inferences"][0] for row in rows(built.folder, "train")}


def test_one_class_alone_is_refused_with_the_report(tmp_path: Path) -> None:
    events = [inference(1), word(1, 1, value=1.0)]
    with pytest.raises(NothingLeft, match="All rows are good answers"):
        made(tmp_path, *events, evaluation=0.0)
    with pytest.raises(NothingLeft, match=r"(?s)No row is left.*no_feedback"):
        made(tmp_path, inference(1), kind="sft")
    assert not list(tmp_path.iterdir())


def test_answers_of_old_policies_bring_a_warning(tmp_path: Path) -> None:
    built = made(tmp_path, *thumbs(), place={"generations": {"sha256:three": 4}})
    assert any("more than 2 generations old" in each for each in built.manifest.warnings)
    fresh = made(tmp_path, *thumbs(), place={"generations": {"sha256:three": 1}})
    assert not any("generations" in each for each in fresh.manifest.warnings)


def test_the_report_tells_counts_balance_lengths_clusters_and_examples(tmp_path: Path) -> None:
    built = made(tmp_path, *thumbs())
    text = (built.folder / "report.txt").read_text()
    for part in ("train", "evaluation", "balance: up", "largest clusters", "example", "shared by both splits: 0 users"):
        assert part in text
    document = orjson.loads((built.folder / "report.json").read_bytes())
    assert document["digest"] == built.digest
    assert document["lengths"]["train"]["median"] > 0


def test_a_disk_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def full(stage: str, done: int, total: int | None) -> None:
        if stage == "writing":
            raise OSError(28, "No space left on device")

    with pytest.raises(CannotWrite, match="No space left"):
        made(tmp_path / "datasets", *thumbs(), place={"progress": full})
    assert not list((tmp_path / "datasets").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite):
        made(tmp_path / "file", *thumbs())


def test_progress_is_told_by_stage(tmp_path: Path) -> None:
    stages: list[str] = []
    made(tmp_path, *thumbs(), place={"progress": lambda stage, done, total: stages.append(stage)})
    assert list(dict.fromkeys(stages)) == ["feedback", "records", "rows", "choosing", "writing"]
