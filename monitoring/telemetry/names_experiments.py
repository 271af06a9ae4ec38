"""The metrics of experiments and of the feedback that they wait for: by alias, since ids are ever new."""

from __future__ import annotations

from monitoring.telemetry.declared import Label, Metric

_ALIAS = Label(name="alias")

EXPERIMENTS: tuple[Metric, ...] = (
    Metric(
        name="graftline_experiment_units",
        kind="gauge",
        help="Units of the running experiment, by the arm that each met first.",
        labels=(_ALIAS, Label(name="arm")),
    ),
    Metric(
        name="graftline_experiment_stage",
        kind="gauge",
        help="1 for the stage in which the experiment stands, else 0.",
        labels=(
            _ALIAS,
            Label(name="stage", values=("running", "promoting", "promoted", "rolled_back", "stopped")),
        ),
    ),
    Metric(
        name="graftline_experiment_verdict",
        kind="gauge",
        help="1 for what the last ruling said, else 0.",
        labels=(
            _ALIAS,
            Label(name="verdict", values=("open", "promote", "hold", "roll_back", "ramp", "drop", "stop")),
        ),
    ),
    Metric(
        name="graftline_experiment_share",
        kind="gauge",
        help="The share of the units that each arm has now.",
        labels=(_ALIAS,),
    ),
    Metric(
        name="graftline_experiment_bound",
        kind="gauge",
        help="Treatment minus control, above 0 is better: the estimate and its always-valid bounds. Each is NaN where "
        "too little is known.",
        labels=(
            _ALIAS,
            Label(name="arm"),
            Label(name="metric"),
            Label(name="side", values=("estimate", "lower", "upper")),
        ),
    ),
    Metric(
        name="graftline_experiment_srm",
        kind="gauge",
        help="The evidence that arms do not have their shares of the units, over the one that blocks a promotion. From "
        "1 on it is an alarm.",
        labels=(_ALIAS,),
    ),
    Metric(
        name="graftline_experiment_broken",
        kind="gauge",
        help="1 where the last look could not be trusted: records are late, lost, missing or contradict each other.",
        labels=(_ALIAS,),
    ),
    Metric(
        name="graftline_experiment_looked_timestamp_seconds",
        kind="gauge",
        unit="seconds",
        help="When the experiment was looked at last, unix time; 0 where none runs.",
        labels=(_ALIAS,),
    ),
    Metric(
        name="graftline_experiment_selftest_alarms",
        kind="gauge",
        help="What the A/A self-test found at its last look. Anything but 0 is an alarm.",
        labels=(_ALIAS,),
    ),
    Metric(
        name="graftline_feedback_waiting",
        kind="gauge",
        help="Feedback whose answer is not known, as counted within the last hour.",
    ),
    Metric(
        name="graftline_feedback_expired_total",
        kind="counter",
        help="Feedback given up because its answer never came.",
    ),
    Metric(
        name="graftline_webhook_failures_total",
        kind="counter",
        help="Calls of the approvals webhook that failed; each is tried again.",
    ),
)
