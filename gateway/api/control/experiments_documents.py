"""Experiments, rulings and proposals as JSON. The salt is told to nobody: with it one could choose one's arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from adapters.experiments.values import Experiment, Proposal, Ruling

#: Of so many rulings one has numbers: only the ends of an experiment have none.
RULINGS_NEEDED = 8
_NO_NUMBERS: Mapping[str, Any] = {
    "units": {},
    "settled": {},
    "estimates": [],
    "srm": None,
    "mixed": 0.0,
    "missing": 0.0,
    "unitless": 0.0,
}


def document(experiment: Experiment) -> dict[str, Any]:
    """An experiment as it was asked for, and where it stands."""
    told = {name: value for name, value in asdict(experiment).items() if name not in ("salt", "srm", "epochs")}
    return {
        "object": "experiment",
        **told,
        "share": experiment.share,
        "dropped": list(experiment.dropped),
        "shares": list(experiment.epochs[-1].shares) if experiment.epochs else [],
    }


def looked(
    experiment: Experiment, rulings: Sequence[Ruling] = (), proposals: Sequence[Proposal] = ()
) -> dict[str, Any]:
    """The same with what is known of it. `rulings` are the newest first; the estimates are those of the newest look.

    `waits_for` is what keeps a running experiment from the next step, or why it ended.
    """
    newest = rulings[0] if rulings else None
    look = next((ruling for ruling in rulings if ruling.numbers), None)
    known = {**_NO_NUMBERS, **(look.numbers if look else {})}
    if known["srm"]:
        known["srm"] = {**known["srm"], **_mismatch(experiment)}
    return {
        **document(experiment),
        **known,
        "looked_at": look.at if look else None,
        "verdict": str(newest.verdict) if newest else None,
        "waits_for": list(newest.reasons) if newest else [],
        "proposals": [proposed(each) for each in proposals if each.open],
    }


def ruled(ruling: Ruling) -> dict[str, Any]:
    """One decision, with its numbers."""
    return {"object": "experiment.ruling", **asdict(ruling)}


def proposed(proposal: Proposal) -> dict[str, Any]:
    """A decision that waits for a person, or what became of it."""
    return {"object": "approval", **asdict(proposal)}


def _mismatch(experiment: Experiment) -> dict[str, Any]:
    """The evidence at its largest, and from where on it is one."""
    threshold = -math.log(experiment.srm_alpha)
    return {"evidence": experiment.srm, "threshold": threshold, "alarm": experiment.srm >= threshold}
