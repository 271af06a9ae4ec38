"""What the trained adapter says to the probe's prompts, recorded where it was trained: `parity.json`. Heavy.

What leaves is read back from its files onto a freshly loaded base, in the numbers that every replica is held against
before it serves. The model in memory is asked the same: where nothing was converted on the way, both must agree, or the
files do not hold what was learnt. Merges and exports that were broken without a word are what users tell of most.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from adapters.checks.parity import certificate
from adapters.checks.probe import Recorded, recorded
from adapters.errors import Rejected
from training.recipes.lesson import Lesson, Trained
from training.recipes.progress import Noted

FILE: Final = "parity.json"
BY: Final = "trainer"


def record(lesson: Lesson, trained: Trained, adapter: Path, *, converted: bool, whole: bool = True) -> dict[str, float]:
    """Write `parity.json` beside the adapter's folder; how far the model in memory is from its files.

    `converted`: what left is not what was trained, but near it; `whole`: the model in memory is all in this process. A
    reward model says no words, and has no such file.
    """
    from training.model import quiet
    from training.probe import model as probe

    if lesson.chosen.method == "reward":
        return {}
    began = time.monotonic()
    with quiet():
        warm = probe.warm(lesson.base)
        files = probe.rows(probe.adapted(warm.model, adapter), warm.prompts)
    try:
        found = recorded(warm.prompts, files, warm.base, seconds=time.monotonic() - began, by=BY)
    except Rejected as error:
        # It is told here and refused where adapters are registered, in the same words.
        lesson.progress.said(Noted(what="parity", text=str(error)))
        return {}
    document: dict[str, Any] = {**found.document(), "trained": None}
    numbers: dict[str, float] = {"effect": found.effect}
    if whole:
        memory = _said(trained.model, warm.prompts)
        plain = not converted and lesson.recipe.quantization == "none"
        apart = _apart(found, memory)
        document["trained"] = {**apart, "plain": plain, "logprobs": memory}
        numbers |= {f"parity_{name}": apart[name] for name in ("mean", "p99", "most")}
        if plain and not apart["passed"]:
            text = (
                f"the adapter's files do not say what the model in memory says (mean {apart['mean']:.3g}, p99 "
                f"{apart['p99']:.3g}, most {apart['most']:.3g} nats): it cannot be published"
            )
            lesson.progress.said(Noted(what="parity", text=text))
    building = adapter.parent / f".{FILE}"
    building.write_text(json.dumps(document) + "\n")
    os.replace(building, adapter.parent / FILE)
    return numbers


def _said(model: Any, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
    from training.probe import model as probe

    was = model.training
    model.eval()
    try:
        return probe.rows(model, prompts)
    finally:
        model.train(was)


def _apart(found: Recorded, memory: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How far the two are, by the rule that replicas are held to."""
    judged = certificate(found, memory)
    return {"passed": judged.passed, "mean": judged.mean, "p99": judged.p99, "most": judged.most}
