"""A whole evaluation, against an engine in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.training.evaluation.fake import Fake
from training.evaluation.errors import BadEvaluation, BadPlan, EngineAway, JudgeAway
from training.evaluation.kept import Kept
from training.evaluation.progress import Asking, Heard, Noted, as_fields, from_fields
from training.evaluation.run import Wires, evaluate
from training.evaluation.values import Asked, Endpoint, Evaluation, Judge, Models, Plan, load, read

ENGINE = Endpoint(url="http://engine/v1", tries=1)
MODELS = Models(candidate="support@2", base="base", live="support@1")


def rows(tmp_path: Path, count: int = 30) -> str:
    path = tmp_path / "held.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {"prompt": f"How long is {at}?", "completion": "You have 45 days.", "route": "a" if at % 2 else "b"}
            )
            + "\n"
            for at in range(count)
        )
    )
    return str(path)


def plan(source: str, **more: object) -> Plan:
    fields: dict[str, object] = {"engine": ENGINE, "models": MODELS, "resamples": 200}
    suites = (Asked(name="held", source=source, by=("route",)),)
    return Plan(**{**fields, "suites": suites, **more})


def answers(model: str, asked: str) -> str:
    return "You have 30 days." if model == "base" else "You have 45 days."


def engine() -> Fake:
    return Fake(answers, logprobs={"base": -2.0, "support@1": -1.0, "support@2": -0.5})


async def done(asked: Plan, fake: Fake, *, kept: Kept | None = None, judge: Fake | None = None) -> Evaluation:
    wires = Wires(engine=fake.transport, judge=judge.transport if judge else None)
    found, _ = await evaluate(asked, Heard(), kept=kept, wires=wires)
    return found


async def test_an_evaluation_measures_what_the_engine_says(tmp_path: Path) -> None:
    heard = Heard()
    fake = engine()
    found, _ = await evaluate(plan(rows(tmp_path)), heard, wires=Wires(engine=fake.transport))
    exact, loss = found.find("held.exact"), found.find("held.loss")
    assert exact is not None
    assert loss is not None
    assert (exact.value, exact.n) == (1.0, 30)
    assert exact.versus_base is not None
    assert exact.versus_base.value == 1.0
    assert exact.versus_live is not None
    assert exact.versus_live.value == 0.0
    assert loss.value == pytest.approx(0.5)
    assert loss.versus_base is not None
    assert loss.versus_base.value == pytest.approx(-1.5)
    assert [cut.by for cut in exact.cuts] == ["route"]
    told = [event for event in heard.events if isinstance(event, Asking)]
    assert {event.who for event in told} == {"candidate", "base", "live"}
    assert all(from_fields(as_fields(event)) == event for event in heard.events)
    # the answer and its end mark, and nothing of the question
    body = next(body for path, body in fake.asked if path == "/v1/completions")
    assert body["prompt"][-len("You have 45 days.<end>") :] == [ord(each) for each in "You have 45 days.<end>"]


async def test_it_is_written_and_read_as_it_is(tmp_path: Path) -> None:
    found = await done(plan(rows(tmp_path)), engine())
    assert load(found.dump()) == found
    with pytest.raises(BadEvaluation):
        load(b"{}")
    with pytest.raises(BadEvaluation):
        load(found.dump().replace(b'"level"', b'"levels"'))


async def test_its_digest_names_the_questions_and_not_the_answers(tmp_path: Path) -> None:
    source = rows(tmp_path)
    first = await done(plan(source), engine())
    again = await done(plan(source, engine=Endpoint(url="http://elsewhere", key="k", tries=1)), Fake(lambda *_: "no"))
    assert first.digest == again.digest
    assert (await done(plan(source, seed=1), engine())).digest != first.digest
    other = rows(tmp_path, 31)
    assert (await done(plan(other), engine())).digest != first.digest


async def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    asked, part = plan(rows(tmp_path)), tmp_path / "evaluation.part"
    first = engine()
    kept = Kept(part)
    await done(asked, first, kept=kept)
    kept.close()  # and nothing more: it was killed
    with part.open("ab") as file:
        file.write(b'["half a li')  # torn by the kill
    second = engine()
    with Kept(part) as kept:
        await done(asked, second, kept=kept)
    assert {path for path, _ in second.asked} == {"/tokenize"}
    assert not part.exists()


async def test_an_engine_that_stumbles_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.ask._WAIT_S", 0.0)
    fake = engine()
    fake.fail = {"/v1/chat/completions": [503, 429], "/v1/completions": [500]}
    found = await done(plan(rows(tmp_path), engine=Endpoint(url="http://engine", tries=3)), fake)
    assert found.warnings == ()


async def test_few_rows_without_an_answer_are_left_out_and_said(tmp_path: Path) -> None:
    fake = engine()
    fake.fail = {"/v1/chat/completions": [503]}
    found = await done(plan(rows(tmp_path)), fake)
    assert found.suites[0].unanswered == 1
    assert "1 of 30 rows had no whole answer of candidate (away 1)" in found.warnings[0]
    exact = found.find("held.exact")
    assert exact is not None
    assert exact.n == 29


async def test_too_many_of_them_are_no_evaluation(tmp_path: Path) -> None:
    fake = engine()
    fake.fail = {"/v1/chat/completions": [503] * 5}
    with pytest.raises(EngineAway, match="5 of 30 rows"):
        await done(plan(rows(tmp_path)), fake)


async def test_a_model_that_the_engine_does_not_hold_is_named(tmp_path: Path) -> None:
    asked = plan(rows(tmp_path), models=Models(candidate="support@9", base="base"))
    with pytest.raises(EngineAway, match=r"does not hold support@9; it holds base, support@1, support@2"):
        await done(asked, engine())


async def test_a_key_that_is_not_taken_ends_it_at_once(tmp_path: Path) -> None:
    fake = engine()
    fake.fail = {"/v1/chat/completions": [401]}
    with pytest.raises(EngineAway, match="answers 401"):
        await done(plan(rows(tmp_path)), fake)


async def test_rows_too_long_for_the_engine_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "held.jsonl"
    path.write_text("".join(json.dumps({"prompt": "x" * size, "completion": "y"}) + "\n" for size in (5, 600, 5, 5)))
    heard = Heard()
    found, _ = await evaluate(plan(str(path)), heard, wires=Wires(engine=engine().transport))
    assert any("too_long 1" in warning for warning in found.warnings)
    loss = found.find("held.loss")
    assert loss is not None
    assert loss.n == 3
    assert any(isinstance(event, Noted) for event in heard.events)


async def test_a_judge_says_who_wins_and_how_grounded_answers_are(tmp_path: Path) -> None:
    path = tmp_path / "held.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"How long is {at}?", "context": "45 days"}) + "\n" for at in range(8))
    )

    def verdicts(model: str, asked: str) -> str:
        if "answer A" not in asked:
            return f"groundedness: {5 if '45 days.' in asked else 1}\nrelevance: 5\ncompleteness: 5"
        first = asked[asked.index("answer A") : asked.index("answer B")]
        return "[[A]]" if "45" in first else "[[B]]"

    judge = Fake(verdicts, models=("judge",))
    asked = plan(str(path), judge=Judge(url="http://judge", model="judge", tries=1))
    found = await done(asked, engine(), judge=judge)
    wins, even, grounded = (found.find(f"held.{name}") for name in ("wins_over_base", "wins_over_live", "groundedness"))
    assert wins is not None
    assert even is not None
    assert grounded is not None
    assert (wins.value, even.value) == (1.0, 0.5)
    assert grounded.versus_base is not None
    assert (grounded.value, grounded.versus_base.value) == (1.0, 1.0)
    assert found.judge == "judge"


async def test_a_judge_without_verdicts_is_away(tmp_path: Path) -> None:
    judge = Fake(lambda *_: "Hm.", models=("judge",))
    asked = plan(rows(tmp_path, 4), judge=Judge(url="http://judge", model="judge", tries=1))
    with pytest.raises(JudgeAway, match="gave 0 verdicts"):
        await done(asked, engine(), judge=judge)


def test_a_plan_says_all_that_is_wrong_with_it() -> None:
    with pytest.raises(BadPlan) as refused:
        read(b'{"engine": {"url": 4}, "suites": [], "surprise": 1}')
    assert {problem.split(":")[0] for problem in refused.value.problems} == {
        "engine.url", "models", "suites", "surprise"
    }  # fmt: skip
    suite = {"name": "a", "source": "builtin:general"}
    twice = {"engine": {"url": "http://e"}, "models": {"candidate": "c", "base": "b"}, "suites": [suite, suite]}
    with pytest.raises(BadPlan, match="more than once"):
        read(json.dumps(twice).encode())


async def test_a_measure_that_nobody_knows_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    fake = engine()
    with pytest.raises(BadPlan, match="no measure is called beauty"):
        await done(
            plan(rows(tmp_path), suites=(Asked(name="a", source="builtin:general", measures=("beauty",)),)), fake
        )
    assert fake.asked == []


def test_a_plan_keeps_its_keys_out_of_what_names_it(tmp_path: Path) -> None:
    secret = Endpoint(url="http://e", key="hunter2")
    asked = plan(rows(tmp_path), engine=secret, judge=Judge(url="http://j", model="j", key="hunter3"))
    assert "hunter" not in json.dumps(asked.identity())
    assert "hunter" not in repr(asked)
    assert read(asked.dump()) == asked


@pytest.mark.slow
def test_the_process_fails_in_words_and_with_a_code(tmp_path: Path) -> None:
    asked = plan(rows(tmp_path), engine=Endpoint(url=f"unix:{tmp_path}/nobody.sock", tries=1))
    ran = subprocess.run(
        [sys.executable, "-m", "training.evaluation", "-", "--out", str(tmp_path / "evaluation.json")],
        input=asked.dump(),
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    assert (last["event"], last["code"], last["retryable"]) == ("failed", "evaluation_engine_away", True)
    assert not (tmp_path / "evaluation.json").exists()
