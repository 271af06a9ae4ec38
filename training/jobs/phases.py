"""What happens in each phase of a job. A phase asks what stands already, does the next thing, and returns at once: it
is called again and again, by this worker or by the one after it, until it moves the job on or ends it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from training.jobs.held import Ended, Held, Tools, died, move_on, pass_on, say, standing
from training.jobs.means import Place, Prepared
from training.jobs.telling import finished, last_failure, mend
from training.jobs.turns import Fields
from training.jobs.values import JobError, JobState, Phase
from training.launchers.values import LaunchSpec
from training.launchers.values import training as training_spec
from training.recipes.progress import Failed
from training.recipes.recipe import read as read_recipe

RECIPE: Final = "recipe.yaml"
PREPARED: Final = "prepared.json"
EVALUATION: Final = "evaluation.json"
#: Failures after which the run can go on as it is, once somebody has made room.
_CAN_GO_ON: Final = frozenset({"disk_full"})
_COMES_FREE: Final = frozenset({"run_taken"})
_FORESEE_EVERY_S: Final = 10.0
_AGAIN_S: Final = 5.0


def data(held: Held, tools: Tools) -> None:
    """The recipe and all that it names, where the training finds them."""
    held.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _prepared(held, tools)
    move_on(held, tools, Phase.TRAIN)


def train(held: Held, tools: Tools) -> None:
    """The training's process."""
    if held.running is None:
        if held.job.handle:
            held.running = tools.launcher.reattach(held.job.handle)
        if held.running is None:
            pass_on(held, tools)
            if finished(held.folder) is not None:
                move_on(held, tools, Phase.PUBLISH, **_learnt(held))
                return
            _start(held, tools)
    assert held.running is not None
    code = held.running.poll()
    pass_on(held, tools)
    if code is None:
        _foresee(held, tools)
        return
    held.running = None
    if finished(held.folder) is not None:
        move_on(held, tools, Phase.PUBLISH, **_learnt(held))
        return
    if held.job.handle:
        move_on(held, tools, Phase.TRAIN, handle="")  # or the next start would find the run that has ended
    if isinstance(failed := held.tail.last, Failed):
        if failed.code in _COMES_FREE:  # the run before this one is still being ended
            held.again_at = tools.clock() + _AGAIN_S
            return
        error = JobError(code=failed.code, message=failed.message, param=_blamed(failed.code))
        raise Ended(JobState.PAUSED if failed.code in _CAN_GO_ON else JobState.FAILED, error)
    died(held, tools, "training", code)


def publish(held: Held, tools: Tools) -> None:
    """A version of the registry, which nobody can name yet. A reward model has none: it serves as a reward."""
    if _method(held) == "reward":
        text = f"The reward model is in {held.folder / 'adapter'}: name it as model:FOLDER in rl.rewards"
        say(held, tools, "info", text, what="reward")
        raise Ended(JobState.SUCCEEDED, files=tools.house.attach(held.job, held.folder))
    version = tools.house.publish(held.job, held.folder)
    say(held, tools, "info", f"Published as {held.job.name}:{version}, a candidate for the gate", what="published")
    move_on(held, tools, Phase.EVALUATE, version=version)


def evaluate(held: Held, tools: Tools) -> None:
    """Held-out rows and more, asked of the engine that serves."""
    if (held.folder / EVALUATION).is_file():
        move_on(held, tools, Phase.DECIDE)
        return
    if held.running is None:
        if standing(held, tools).place is Place.WAITING:
            return
        plan = tools.house.plan(held.job, held.folder)
        spec = LaunchSpec(
            name=f"{held.job.id}-evaluate",
            module="training.evaluation",
            args=(str(plan), "--out", str(held.folder / EVALUATION)),
            folder=held.folder,
            attempt=held.job.attempt,
        )
        held.running = tools.near.start(spec)
        say(held, tools, "info", "Evaluation began", what=f"{held.job.attempt}/evaluating/{held.restarts}")
    code = held.running.poll()
    if code is None:
        return
    held.running = None
    if code == 0 and (held.folder / EVALUATION).is_file():
        move_on(held, tools, Phase.DECIDE)
        return
    failed = last_failure(held.folder)
    if failed is not None and not failed.get("retryable"):
        raise Ended(JobState.FAILED, JobError(code=str(failed.get("code")), message=str(failed.get("message"))))
    died(held, tools, "evaluation", code)


def decide(held: Held, tools: Tools) -> None:
    """The gate; then until what passed it answers."""
    if held.ruling is None:
        held.ruling = tools.house.decide(held.job, held.folder)
        passed = "passed" if held.ruling.passed else "failed"
        say(held, tools, "info" if held.ruling.passed else "warn", f"The gate {passed}", what=f"gate/{passed}")
    if not held.ruling.passed:
        why = "; ".join(held.ruling.reasons) or "the gate gave no reason"
        files = tools.house.attach(held.job, held.folder)
        raise Ended(JobState.FAILED, JobError(code="gate_failed", message=why), files=files)
    if standing(held, tools).place is Place.SERVING:
        say(held, tools, "info", f"{held.job.name}:{held.job.version} is served", what="served")
        raise Ended(JobState.SUCCEEDED, files=tools.house.attach(held.job, held.folder))


PHASES: Final[dict[Phase, Callable[[Held, Tools], None]]] = {
    Phase.DATA: data,
    Phase.TRAIN: train,
    Phase.PUBLISH: publish,
    Phase.EVALUATE: evaluate,
    Phase.DECIDE: decide,
}


def _start(held: Held, tools: Tools) -> None:
    """What an earlier start left half done goes; its last whole checkpoint stays, and the training goes on from it."""
    prepared = _prepared(held, tools)
    shutil.rmtree(held.folder / "adapter", ignore_errors=True)
    (held.folder / "run.json").unlink(missing_ok=True)
    mend(held.folder)
    pass_on(held, tools)  # what came before is not taken for what this start says
    held.tail.last, held.saved, held.began = None, held.tail.saved, None
    recipe = read_recipe((held.folder / RECIPE).read_text(encoding="utf-8"))
    spec = training_spec(
        name=held.job.id,
        recipe=held.folder / RECIPE,
        folder=held.folder,
        launch=recipe.launch,
        base=prepared.base,
        start=prepared.start,
        attempt=held.job.attempt,
    )
    if (share := tools.terms.share_gib) is not None:
        spec = replace(spec, args=(*spec.args, "--memory-gib", f"{share:g}"))
    held.running = tools.launcher.start(spec)
    move_on(held, tools, Phase.TRAIN, handle=held.running.handle)


def _prepared(held: Held, tools: Tools) -> Prepared:
    """What the job was started with, or is now."""
    path = held.folder / PREPARED
    if path.is_file():
        kept = json.loads(path.read_text())
        return Prepared(base=Path(kept["base"]), start=Path(kept["start"]) if kept["start"] else None)
    prepared = tools.house.prepare(held.job, held.folder)
    building = held.folder / f".{PREPARED}"
    start = str(prepared.start) if prepared.start else None
    building.write_text(json.dumps({"base": str(prepared.base), "start": start}) + "\n")
    building.replace(path)
    return prepared


def _foresee(held: Held, tools: Tools) -> None:
    """When the run should be done, by how fast its steps went since this worker watches."""
    now, tail = tools.clock(), held.tail
    if held.began is None:
        held.began = (now, tail.step) if tail.step else None
        return
    since, first = held.began
    if tail.step <= first or now - held.foreseen_at < _FORESEE_EVERY_S:
        return
    held.foreseen_at = now
    left_s = (tail.steps - tail.step) * (now - since) / (tail.step - first)
    move_on(held, tools, Phase.TRAIN, finish_at=round(now + left_s, 1))


def _learnt(held: Held) -> Fields:
    """What a finished run says of itself."""
    kept = json.loads((held.folder / "run.json").read_text())
    fields: Fields = {"generation": int(kept.get("generation", 1)), "finish_at": None}
    if held.tail.tokens is not None:
        fields["trained_tokens"] = held.tail.tokens
    return fields


def _method(held: Held) -> str:
    """What was chosen where the recipe left it open."""
    return str(json.loads((held.folder / "run.json").read_text()).get("chosen", {}).get("method", ""))


def _blamed(code: str) -> str:
    """What of the request a failed run blames."""
    return {"bad_rows": "training_file", "bad_recipe": "method", "too_stale": "model"}.get(code, "")
