"""A teacher's rows are verified, marked, capped and kept out of evaluation; and nothing is asked twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.unit.training.data.made import Letters, inference, stored, word
from training.data.build import Built, Place, build
from training.data.errors import BadRules, TeacherAway
from training.data.reasons import Reason
from training.data.rules import Rules
from training.data.teacher import verify
from training.data.teacher.ask import Chat, Endpoint
from training.data.teacher.teach import Teaching, teach
from training.data.values import Message

pytest.importorskip("pyarrow")
from training.data.parquet import load, rows

pytestmark = pytest.mark.slow

WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jolly", "kayak")


def sentence(number: int) -> str:
    return " ".join(WORDS[(number * prime + number // prime) % 11] for prime in (3, 5, 7, 13, 17, 19, 23, 29, 31, 37))


@dataclass
class Told:
    """A teacher who answers by a function of the text between the lines, and says yes to what it is asked to judge."""

    words: Callable[[str], str] = lambda text: f"put otherwise {text[::-1]}"
    verdict: str = "Yes."
    model: str = "big"
    chats: list[Chat] = field(default_factory=list)

    def said(self, chats: Sequence[Chat]) -> list[str]:
        self.chats += chats
        return [self._one(chat) for chat in chats]

    def _one(self, chat: Chat) -> str:
        content = chat[-1]["content"]
        if "Answer yes or no." in content:
            return self.verdict
        return self.words(content.split("---")[1].strip()) if "---" in content else self.words(content)


def built(root: Path, kind: Any = "kto", count: int = 60, **more: Any) -> tuple[Built, Place]:
    asked = [inference(n, asked=sentence(n), answer=sentence(n + 1000), user=f"user-{n}") for n in range(count)]
    thumbs = [word(n, n, value=1.0 if n % 2 else -1.0) for n in range(count)]
    place = Place(root=root, template=Letters(), base="sha256:base")
    return build(stored(*asked, *thumbs), Rules(kind=kind, evaluation=0.2, **more), place), place


def test_rows_are_added_to_training_marked_and_capped_and_evaluation_stays(tmp_path: Path) -> None:
    old, place = built(tmp_path)
    new = teach(old.folder, Told(), Teaching(wordings=2, share_max=0.3), place)
    before, after = list(rows(old.folder, "train")), list(rows(new.folder, "train"))
    added = [row for row in after if row["origin"].startswith("teacher:")]
    assert after[: len(before)] == before
    assert 0 < len(added) <= 0.3 * len(after)
    assert len(after) == len(before) + len(added) == new.manifest.parts["train"].rows
    assert list(rows(old.folder, "evaluation")) == list(rows(new.folder, "evaluation"))
    parents = {tuple(row["inferences"]): row for row in before}
    for row in added:
        parent = parents[tuple(row["inferences"])]
        assert row["origin"] == "teacher:wording"
        assert row["prompt"][0]["content"].startswith("put otherwise")
        assert (row["owner"], row["label"], row["completion"]) == (
            parent["owner"],
            parent["label"],
            parent["completion"],
        )
        assert row["weight"] == pytest.approx(parent["weight"] / 2)
        assert row["prompt_ids"] == [ord(letter) for letter in row["prompt"][0]["content"]]
    assert new.manifest.origin == f"big taught {old.digest}"
    assert new.manifest.seen["teacher_rows"] == len(added)
    assert new.manifest.classes["up"] == sum(row["label"] for row in after)
    assert load(new.folder, verify=True) == new.manifest
    assert "teacher:wording" in new.report.text()


def test_the_same_teacher_makes_the_same_dataset(tmp_path: Path) -> None:
    old, place = built(tmp_path)
    assert teach(old.folder, Told(), Teaching(), place).digest == teach(old.folder, Told(), Teaching(), place).digest
    assert (
        teach(old.folder, Told(), Teaching(seed=1), place).digest != teach(old.folder, Told(), Teaching(), place).digest
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (lambda text: "", Reason.EMPTY),
        (lambda text: text.upper(), Reason.NO_CHANGE),
        (lambda text: f"{text} within 12 days", Reason.OTHER_FACTS),
        (lambda text: f"{text} " * 9, Reason.OTHER_FACTS),
        (lambda text: f"[EMAIL] {text}", Reason.OTHER_FACTS),
        (lambda text: f"{text} write to ann@example.com", Reason.PERSONAL),
    ],
)
def test_what_is_no_other_wording_leaves_with_its_reason(
    words: Callable[[str], str], why: Reason, tmp_path: Path
) -> None:
    old, place = built(tmp_path)
    new = teach(old.folder, Told(words=words), Teaching(), place)
    assert new.manifest.seen["teacher_rows"] == 0
    assert new.manifest.left[why.value] >= new.manifest.seen["teacher_asked"] > 0


def test_a_row_whose_teacher_does_not_stand_by_it_leaves(tmp_path: Path) -> None:
    old, place = built(tmp_path)
    new = teach(old.folder, Told(verdict="No."), Teaching(), place)
    assert new.manifest.left[Reason.DOUBTED.value] == new.manifest.seen["teacher_asked"]


def test_wordings_of_what_evaluation_asks_leave(tmp_path: Path) -> None:
    old, place = built(tmp_path)
    held = next(iter(rows(old.folder, "evaluation")))["prompt"][0]["content"]
    new = teach(old.folder, Told(words=lambda text: f"{held}!"), Teaching(), place)
    assert new.manifest.seen["teacher_rows"] == 0
    assert new.manifest.left[Reason.LEAKED.value] > old.manifest.left.get(Reason.LEAKED.value, 0)


def test_disliked_answers_get_a_liked_one_of_the_teachers_own(tmp_path: Path) -> None:
    old, place = built(tmp_path)
    teacher = Told(words=lambda text: f"better {text[::-1]}")
    new = teach(old.folder, teacher, Teaching(wordings=0, answers=True, share_max=0.5), place)
    added = [row for row in rows(new.folder, "train") if row["origin"] == "teacher:answer"]
    assert added
    assert all(row["label"] is True and row["policy"] == row["adapter"] == "" for row in added)
    disliked = {row["prompt"][0]["content"] for row in rows(old.folder, "train") if not row["label"]}
    assert {row["prompt"][0]["content"] for row in added} <= disliked
    assert any("true to what was said before" in chat[-1]["content"] for chat in teacher.chats)


def test_what_cannot_be_taught_is_refused_with_every_problem(tmp_path: Path) -> None:
    old, place = built(tmp_path)
    other = Letters()
    other.digest = "sha256:other"
    with pytest.raises(BadRules) as refused:
        teach(
            old.folder,
            Told(),
            Teaching(wordings=0, share_max=2.0),
            Place(root=tmp_path, template=other),
        )
    assert len(refused.value.problems) == 3
    assert place.template.digest != other.digest


def test_the_endpoint_is_asked_once_and_again_after_errors(tmp_path: Path) -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(orjson.loads(request.content))
        assert request.headers["authorization"] == "Bearer k"
        if len(seen) == 1:
            return httpx.Response(503)
        return httpx.Response(200, json={"choices": [{"finish_reason": "stop", "message": {"content": " Yes. "}}]})

    waited: list[float] = []
    kept = tmp_path / "kept.jsonl"
    teacher = Endpoint(
        url="http://t/v1/", model="m", key="k", kept=kept, at_once=1, sleep=waited.append,
        transport=httpx.MockTransport(answer),
    )  # fmt: skip
    chat = verify.same("a", "b")
    assert teacher.said([chat, chat]) == ["Yes.", "Yes."]
    assert (len(seen), waited) == (2, [2.0])
    assert seen[0]["model"] == "m"
    with kept.open("ab") as file:
        file.write(b'{"torn')
    assert teacher.said([chat]) == ["Yes."]
    assert len(seen) == 2
    assert "key" not in repr(teacher)


@pytest.mark.parametrize(
    "body", [b"no", b"{}", b'{"choices": [{"finish_reason": "length", "message": {"content": "cut"}}]}']
)
def test_an_answer_of_another_form_is_none(body: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    assert Endpoint(url="http://t/v1", model="m", transport=transport).said([verify.same("a", "b")]) == [""]


def test_a_teacher_that_is_away_or_refuses_is_named() -> None:
    for status, tries in ((401, 1), (500, 4)):
        seen: list[int] = []

        def answer(request: httpx.Request, status: int = status, seen: list[int] = seen) -> httpx.Response:
            seen.append(1)
            return httpx.Response(status, text="why")

        teacher = Endpoint(
            url="http://t/v1", model="m", sleep=lambda s: None, transport=httpx.MockTransport(answer), at_once=1
        )
        with pytest.raises(TeacherAway, match=f"status {status}: why"):
            teacher.said([verify.right((Message(role="user", content="Hi"),), "Hello")])
        assert len(seen) == tries
