"""What a run tells, and what it says of a loss that stopped being a number."""

import math
import sys
from collections.abc import Mapping

import pytest

from gateway.verbs.train import events, told
from training.recipes.auto import Choices
from training.recipes.errors import NotFinite
from training.recipes.progress import (
    Began,
    Chose,
    Evaluated,
    Event,
    Failed,
    Finished,
    Noted,
    Saved,
    Stepped,
    as_fields,
    from_fields,
)
from training.recipes.watch import diagnose, distance

CHOSEN = Choices(
    method="sft", rank=8, alpha=16.0, learning_rate=2e-3, steps=60, batch=16, accumulate=1, warmup_steps=5,
    tokens_max=64, precision="float32", evaluate_every=6, liked_weight=1.0, disliked_weight=1.0,
    memory={"logits": 9}, reasons=(),
)  # fmt: skip
EVENTS: tuple[Event, ...] = (
    Began(method="sft", rows=3, steps=4),
    Chose(key="adapter.rank", value="8", why="little data"),
    Stepped(step=1, steps=4, numbers={"loss": 0.5}),
    Evaluated(step=2, numbers={"eval_loss": 0.25}),
    Saved(step=2, folder="/x"),
    Noted(what="rows_too_long", text="2 of 3 rows"),
    Finished(folder="/x", seconds=1.0, cpu_seconds=2.0, numbers={}),
    Failed(code="not_finite", message="no"),
)


def falling(*losses: float) -> list[Mapping[str, float]]:
    return [{"loss": loss, "grad_norm": 1.0} for loss in losses]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_its_line(event: Event) -> None:
    assert from_fields(as_fields(event)) == event


@pytest.mark.parametrize("fields", [{}, {"event": "danced"}, {"event": "began", "rows": 3}])
def test_a_line_that_is_no_event_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no event is called|no whole began event"):
        from_fields(fields)


def test_people_are_told_every_tenth_step() -> None:
    shown = [told(Stepped(step=at, steps=100, numbers={"loss": 0.5, "kl": 0.1})) for at in range(1, 101)]
    assert sum(line is not None for line in shown) == 11
    assert shown[-1] == "step 100 of 100: loss 0.5, kl 0.1"
    assert told(EVENTS[4]) is None
    assert told(EVENTS[1]) == "adapter.rank = 8: little data"


def test_a_run_that_ends_without_a_word_is_told_so() -> None:
    script = "import json, os, signal; print(json.dumps({'event': 'began', 'method': 'sft', 'rows': 1, 'steps': 2}), "
    script += "flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    first, last = events([sys.executable, "-c", script])
    assert first == Began(method="sft", rows=1, steps=2)
    assert isinstance(last, Failed)
    assert "by signal 9" in last.message


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ([], "at the first step"),
        (falling(1.0, 0.5, 4.0), "it diverged. Lower optim.learning_rate (now 0.002)"),
        ([*falling(1.0, 0.9, 0.8), {"loss": 0.8, "grad_norm": 50.0}], "it diverged"),
        (falling(1.0, 0.9, 0.8), "the rows of this one step"),
    ],
)
def test_a_diagnosis_follows_from_the_steps_before(before: list[Mapping[str, float]], why: str) -> None:
    said = diagnose(before, {"loss": math.nan}, CHOSEN)
    assert why in said
    assert said in str(NotFinite(7, "loss", said))


def test_one_odd_step_is_not_yet_a_distance_and_several_are() -> None:
    assert distance([]) == 0
    assert distance([2.0]) == 2
    assert distance([2.0, 2.2, 2.4, 11.0]) < 5
    assert distance([0.1, 0.2, 9.0, 11.0, 12.0, 10.0]) > 10
