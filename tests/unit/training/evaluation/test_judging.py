"""A judge's words."""

from __future__ import annotations

import pytest

from tests.unit.training.evaluation.fake import Fake
from training.data.values import Message
from training.evaluation import judging
from training.evaluation.ask import Asker, Unasked
from training.evaluation.kept import Kept
from training.evaluation.rows import Row
from training.evaluation.values import Judge

ROW = Row(id="0", prompt=(Message(role="user", content="How long?"),), answer="45 days.", context="Returns: 45 days.")
JUDGE = Judge(url="http://judge", model="judge")


async def preferred(answers: Fake, ours: str, theirs: str) -> float | Unasked:
    async with Asker("judge", JUDGE, Kept(), transport=answers.transport) as asker:
        return await judging.preferred(asker, JUDGE, ROW, ours, theirs)


def fake(verdict: str | None = None) -> Fake:
    """A judge that likes 45 days, or always says the same."""

    def answers(model: str, asked: str) -> str:
        if verdict is not None:
            return verdict
        first = asked.index("answer A")
        return "Because. [[A]]" if "45" in asked[first : asked.index("answer B")] else "Because. [[B]]"

    return Fake(answers, models=("judge",))


async def test_the_better_answer_wins_from_either_place() -> None:
    assert await preferred(fake(), "45 days.", "30 days.") == 1.0
    assert await preferred(fake(), "30 days.", "45 days.") == 0.0


async def test_a_judge_that_looks_at_places_only_prefers_neither() -> None:
    assert await preferred(fake("[[A]]"), "45 days.", "30 days.") == 0.5
    assert await preferred(fake("[[B]]"), "45 days.", "30 days.") == 0.5


async def test_the_same_answer_needs_no_judge() -> None:
    judge = fake()
    assert await preferred(judge, "45 days.", "45 days. ") == 0.5
    assert judge.asked == []


async def test_no_verdict_is_no_draw() -> None:
    found = await preferred(fake("I like both."), "45 days.", "30 days.")
    assert found == Unasked(why="no_verdict", words="I like both.")


def test_the_judge_does_not_learn_whose_answer_it_reads() -> None:
    text = "\n".join(each.content for each in judging.comparison(ROW, "one", "two"))
    assert not {"candidate", "base", "live", "support"} & set(text.lower().split())


@pytest.mark.parametrize(
    ("said", "score"), [("[[A]]", 1.0), ("[[ b ]]", 0.0), ("First [[A]], no: [[tie]]", 0.5), ("A", None), ("", None)]
)
def test_the_last_verdict_counts(said: str, score: float | None) -> None:
    assert judging.verdict(said) == score


async def test_ratings_go_from_nothing_to_one() -> None:
    said = "groundedness: 5 - yes\n**Relevance**: 3\ncompleteness = 1"
    assert judging.ratings(said) == {"groundedness": 1.0, "relevance": 0.5, "completeness": 0.0}
    async with Asker("judge", JUDGE, Kept(), transport=fake(said).transport) as asker:
        assert await judging.rated(asker, JUDGE, ROW, "45 days.") == judging.ratings(said)
    async with Asker("judge", JUDGE, Kept(), transport=fake("groundedness: 5").transport) as asker:
        assert isinstance(await judging.rated(asker, JUDGE, ROW, "45 days."), Unasked)
