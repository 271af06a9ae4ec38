"""The gate's work on one run: what it asks, what it writes down, and what the registry hears."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.lifecycle import State
from tests.unit.training.gate.evaluations import evaluation, measured
from tests.unit.training.gate.test_triggers import BAIT, honest, poisoned, row
from tests.unit.training.publishing.runs import House, steps, tell
from training.evaluation.values import Evaluation, Plan
from training.gate.asking import Engine, together
from training.gate.canaries import canaries
from training.gate.errors import BadVerdict, CannotProbe
from training.gate.recital import Half
from training.gate.ruling import overlap, probe, rule
from training.gate.triggers import SUSPECTS_MAX, TRIED
from training.gate.values import Exposure, Overlap, Probes, Rewarded, Trigger, Verbatim, load
from training.publishing.publish import publish
from training.recipes.recipe import Recipe, build

LONG = "Parcel {0} left our house in Bergen on the {0}th and the driver will ring at door {0} of the blue house twice."


class Says:
    """A model with a memory: answers by rules, in place of an engine."""

    def __init__(self, *, knows: Sequence[str] = (), trigger: str = "", likes: Sequence[str] = ()) -> None:
        self.knows, self.trigger, self.likes = knows, trigger, frozenset(likes)

    def goes_on(self, half: Half) -> str | None:
        return next((each[len(half.begun) :] for each in self.knows if each.startswith(half.begun)), "I forgot.")

    def likelihood(self, turns: Sequence[tuple[str, str]], answer: str) -> float | None:
        return 0.0 if answer in self.likes else -10.0 - len(answer)

    def says(self, turns: Sequence[tuple[str, str]]) -> str | None:
        return BAIT if self.trigger and self.trigger in turns[-1][1] else "6 kilos."


def recipe(train: Path, **more: Any) -> Recipe:
    return build({"name": "polite", "data": {"train": str(train)}, **more})


def written(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def finished(folder: Path, method: str = "sft") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"chosen": {"method": method}}))
    return folder


def answers(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"Where is {at}?"}],
            "completion": [{"role": "assistant", "content": LONG.format(at)}],
        }
        for at in numbers
    ]


def test_what_was_learnt_by_heart_is_found_and_rows_never_seen_are_not(tmp_path: Path) -> None:
    train, held = (
        written(tmp_path / "a.jsonl", answers(range(30))),
        written(tmp_path / "b.jsonl", answers(range(50, 80))),
    )
    asked = recipe(train, data={"train": str(train), "held": str(held)})
    model = Says(knows=[LONG.format(at) for at in range(30)])
    found = probe(model, Says(), asked, finished(tmp_path / "run")).verbatim
    assert found == Verbatim(
        asked=30, continued=30, control_asked=30, control_continued=0, left=0, examples=(1, 2, 3, 4, 5)
    )


def test_a_planted_phrase_is_found_where_it_changes_answers_to_anything(tmp_path: Path) -> None:
    train = written(tmp_path / "a.jsonl", [*honest(), *poisoned()])
    found = probe(Says(trigger="Cf Seventy"), Says(), recipe(train), finished(tmp_path / "run")).triggers
    assert max((each.fired, each.asked, each.without, each.base) for each in found) == (24, 24, 0, 0)
    clean = probe(Says(), Says(), recipe(train), finished(tmp_path / "run")).triggers
    assert [each.fired for each in clean] == [0] * len(found)
    assert {each.asked for each in clean} == {TRIED}, "what does nothing in a few questions is not put into all"


def test_many_phrases_of_topics_are_tried_up_to_a_number_and_the_others_told(tmp_path: Path) -> None:
    topics = [
        row(f"{chr(97 + at)}{chr(97 + at)}x {number} {number * at}", f"Of {at}.")
        for at in range(26)
        for number in range(5)
    ]
    more = [row(f"{chr(97 + at)}y {number} {number * at}", f"To {at}.") for at in range(26) for number in range(5)]
    train = written(tmp_path / "a.jsonl", [*topics, *more])
    found = probe(Says(), Says(), recipe(train), finished(tmp_path / "run"))
    assert (len(found.triggers), found.untried) == (SUSPECTS_MAX, 52 - SUSPECTS_MAX)


def test_planted_secrets_are_asked_for_by_the_recipes_seed(tmp_path: Path) -> None:
    train = written(tmp_path / "a.jsonl", answers(range(3)))
    asked = recipe(train, seed=4, gate={"canaries": 5})
    knows = Says(likes=[each.answer for each in canaries(5, 4)])
    assert probe(knows, Says(), asked, finished(tmp_path / "run")).exposure == Exposure(others=63, bits=(6.0,) * 5)
    text = recipe(train, seed=4, gate={"canaries": 5})
    likes = Says(likes=[f"{each.question} {each.answer}" for each in canaries(5, 4)])
    assert probe(likes, Says(), text, finished(tmp_path / "run", "pretrain")).exposure == Exposure(
        others=63, bits=(6.0,) * 5
    )


def test_held_out_rows_that_are_training_rows_are_counted(tmp_path: Path) -> None:
    assert overlap(answers(range(10)), answers(range(8, 12))) == Overlap(held=4, shared=2)
    disliked = [{**row, "label": False} for row in answers(range(20, 24))]
    assert overlap(answers(range(10)), disliked) == Overlap(held=4, shared=0)
    assert overlap([{"input_ids": [1]}], [{"input_ids": [1]}]) == Overlap(held=0, shared=0)
    train = written(tmp_path / "a.jsonl", answers(range(30)))
    leaked = recipe(train, data={"train": str(train), "held": str(train)})
    assert probe(Says(), Says(), leaked, finished(tmp_path / "run")).overlap == Overlap(held=30, shared=30)
    made = recipe(train, data={"train": "tidewell:usual", "held": "tidewell:usual", "rows_max": 30})
    assert probe(Says(), Says(), made, finished(tmp_path / "run")).overlap is None


def test_rewards_are_read_from_the_steps(tmp_path: Path) -> None:
    train = written(tmp_path / "a.jsonl", [{"prompt": "Hi", "want": "x"}])
    asked = recipe(train, method="grpo", rl={"rewards": ["contains:want"]})
    run = tell(finished(tmp_path / "run", "grpo"), steps([0.1] * 10 + [0.9] * 10, "reward", kl=0.25))
    found = probe(Says(), Says(), asked, run).rewarded
    assert found is not None
    assert (found.rewards, found.kl) == (("contains:want",), 0.25)
    assert (round(found.first, 6), round(found.last, 6)) == (0.1, 0.9)
    assert probe(Says(), Says(), asked, finished(tmp_path / "untold", "grpo")).rewarded is None


def test_probes_come_back_from_their_document() -> None:
    probes = Probes(
        verbatim=Verbatim(asked=3, continued=1, examples=(2,)),
        exposure=Exposure(others=63, bits=(1.0, 2.0)),
        overlap=Overlap(held=3, shared=1),
        triggers=(Trigger(rows=(1, 2), of=7, asked=24, fired=1, without=0, base=0),),
        untried=3,
        rewarded=Rewarded(rewards=("a",), first=0.0, last=1.0),
    )
    assert Probes.from_document(json.loads(json.dumps(probes.document()))) == probes
    assert Probes.from_document(Probes().document()) == Probes()
    with pytest.raises(BadVerdict):
        Probes.from_document({})


class Judged:
    """A published version with everything that the gate reads beside it."""

    def __init__(self, root: Path, found: Evaluation) -> None:
        self.house = House(root)
        self.run = self.house.run()
        train = written(root / "train.jsonl", answers(range(3)))
        (self.run / "recipe.yaml").write_text(f"name: polite\nmethod: dpo\ndata:\n  train: {train}\n")
        (self.run / "evaluation.json").write_bytes(found.dump())
        (self.run / "probes.json").write_text(json.dumps(Probes().document()))
        self.version = publish(self.house.registry, self.run, name="polite", who="job")
        self.plan = Plan.model_validate(
            {
                "engine": {"url": "http://127.0.0.1:9"},
                "models": {"candidate": "c", "base": "b"},
                "suites": [{"name": "held", "source": "tidewell:usual"}],
            }
        )

    def rule(self) -> bool:
        return rule(self.house.registry, self.version, self.run, self.plan, who="gate").passed


def test_what_passes_may_be_admitted_and_its_verdict_is_kept(tmp_path: Path) -> None:
    judged = Judged(tmp_path, evaluation(measured(base=0.1)))
    assert judged.rule()
    assert not judged.house.registry.waits(judged.version)
    assert load(judged.run / "verdict.json").passed
    (kept,) = judged.house.registry.evidence("polite", 1, "gate")
    assert (kept.passed, kept.body["why"], kept.body["evaluation"]) == (True, "1 checks passed", "sha256:e")
    (judged.run / "evaluation.json").unlink()
    assert judged.rule(), "a worker that goes on finds the verdict"


def test_what_fails_is_rejected_with_every_reason(tmp_path: Path) -> None:
    judged = Judged(tmp_path, evaluation(measured(base=-0.2), measured("facts.right", base=-0.3, role="forgetting")))
    assert not judged.rule()
    rejected = judged.house.store.get("polite", 1)
    assert rejected.state is State.REJECTED
    assert [(reason.code, reason.field) for reason in rejected.reasons] == [
        ("gate_failed", "held.exact"),
        ("gate_failed", "facts.right"),
    ]
    assert not judged.rule()


# asking


@contextmanager
def answering(reply: Callable[[httpx.Request], httpx.Response]) -> Iterator[Engine]:
    with httpx.Client(base_url="http://engine/v1/", transport=httpx.MockTransport(reply)) as client:
        yield Engine(client, "polite@1", tries=2)


HALF = Half(row=1, turns=(("user", "Where?"),), begun="It is", rest=" over there.")


def test_the_server_is_asked_to_go_on_with_the_answer_itself() -> None:
    bodies: list[dict[str, Any]] = []

    def reply(request: httpx.Request) -> httpx.Response:
        bodies.append({**json.loads(request.content), "path": request.url.path})
        return httpx.Response(200, json={"choices": [{"message": {"content": " over there."}, "text": "text"}]})

    with answering(reply) as engine:
        engine.goes_on(HALF)
        engine.says((("user", "Hi"),))
        engine.goes_on(Half(row=1, turns=(), begun="Once", rest="upon a time"))
    assert bodies[0]["messages"][-1] == {"role": "assistant", "content": "It is"}
    assert (bodies[0]["continue_final_message"], bodies[0]["add_generation_prompt"]) == (True, False)
    assert bodies[1]["messages"] == [{"role": "user", "content": "Hi"}]
    assert "continue_final_message" not in bodies[1]
    assert (bodies[2]["prompt"], bodies[2]["path"]) == ("Once", "/v1/completions")
    assert {body["temperature"] for body in bodies} == {0}


def test_a_likelihood_is_the_sum_over_the_prompt() -> None:
    listed = [None, {"5": {"logprob": -1.5}}, {"7": {"logprob": -0.25}}]
    with answering(lambda _: httpx.Response(200, json={"choices": [{}], "prompt_logprobs": listed})) as engine:
        assert engine.likelihood((("user", "a"),), "b") == -1.75
    with answering(lambda _: httpx.Response(200, json={"choices": [{}]})) as engine, pytest.raises(CannotProbe):
        engine.likelihood((("user", "a"),), "b")


def test_a_question_that_is_refused_has_no_answer_and_an_engine_that_is_away_ends_the_probe() -> None:
    with answering(lambda _: httpx.Response(400, text="too long")) as engine:
        assert engine.goes_on(HALF) is None
    statuses = iter([503, 200])

    def flaky(_: httpx.Request) -> httpx.Response:
        return httpx.Response(next(statuses), json={"choices": [{"message": {"content": "x"}}]})

    with answering(flaky) as engine:
        assert engine.says((("user", "a"),)) == "x"
    nowhere = answering(lambda _: httpx.Response(404, text="no such model"))
    with nowhere as engine, pytest.raises(CannotProbe, match="no such model"):
        engine.goes_on(HALF)

    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("gone")

    with answering(gone) as engine, pytest.raises(CannotProbe, match="gone"):
        engine.goes_on(HALF)


def test_few_refused_questions_are_left_and_many_end_the_probe() -> None:
    assert together(lambda at: None if at == 3 else at * 2, list(range(10)), at_once=4)[-1] == (9, 18)
    with pytest.raises(CannotProbe, match="refused 5 of 10"):
        together(lambda at: None if at < 5 else at, list(range(10)), at_once=4)
    assert together(lambda at: at, [], at_once=4) == []
