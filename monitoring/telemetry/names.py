"""Every metric, once: its name, kind, unit, labels, meaning and buckets.

Names that begin with `gen_ai_` are OpenTelemetry's GenAI conventions in the form its Prometheus exporter gives them
(https://github.com/open-telemetry/semantic-conventions-genai), with the buckets recommended there. As it asks for
fine-tuned models, `gen_ai_response_model` is more specific than the base: `adapter:version`, or `base`.
"""

from __future__ import annotations

from monitoring.telemetry.declared import OTHER, Label, Metric
from monitoring.telemetry.names_experiments import EXPERIMENTS

__all__ = ["METRICS", "OTHER", "Metric"]

_DURATIONS_S = tuple(0.01 * 2**n for n in range(14))
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**n) for n in range(14))

_ENDPOINT = Label(name="endpoint", values=("chat", "completions", "responses", "embeddings"))
_OPERATION = Label(name="gen_ai_operation_name", values=("chat", "text_completion", "embeddings"))
_MODEL = Label(name="gen_ai_response_model")
_TOKEN_TYPE = Label(name="gen_ai_token_type", values=("input", "output"))
_REPLICA = Label(name="replica")

METRICS: tuple[Metric, ...] = (
    Metric(
        name="graftline_requests_total",
        kind="counter",
        help="Requests that ended, by endpoint and by error code, or HTTP status where there was no error.",
        labels=(_ENDPOINT, Label(name="code")),
    ),
    Metric(
        name="gen_ai_server_request_duration_seconds",
        kind="histogram",
        unit="seconds",
        help="From the request's arrival to the last byte of its answer.",
        labels=(_OPERATION, _MODEL),
        buckets=_DURATIONS_S,
    ),
    Metric(
        name="gen_ai_server_time_to_first_token_seconds",
        kind="histogram",
        unit="seconds",
        help="From the request's arrival to the first token of a streamed answer.",
        labels=(_OPERATION, _MODEL),
        buckets=_FIRST_TOKEN_S,
    ),
    Metric(
        name="gen_ai_server_time_per_output_token_seconds",
        kind="histogram",
        unit="seconds",
        help="Between the tokens of a streamed answer after its first, on average.",
        labels=(_OPERATION, _MODEL),
        buckets=_PER_TOKEN_S,
    ),
    Metric(
        name="gen_ai_client_token_usage",
        kind="histogram",
        unit="tokens",
        help="Tokens of one request, as the engine counted them.",
        labels=(_OPERATION, _MODEL, _TOKEN_TYPE),
        buckets=_TOKENS,
    ),
    Metric(
        name="graftline_tokens_total",
        kind="counter",
        unit="tokens",
        help="Tokens read and written, as the engine counted them.",
        labels=(_TOKEN_TYPE, _MODEL),
    ),
    Metric(name="graftline_inflight", kind="gauge", help="Requests being served now."),
    Metric(
        name="graftline_clients_left_total",
        kind="counter",
        help="Clients that went away before their answer was whole.",
        labels=(_ENDPOINT,),
    ),
    Metric(
        name="graftline_retries_total",
        kind="counter",
        help="Requests tried again on another replica before their first byte.",
        labels=(_ENDPOINT,),
    ),
    Metric(
        name="graftline_stream_errors_total",
        kind="counter",
        help="Answers that broke off after their first byte.",
        labels=(_ENDPOINT,),
    ),
    Metric(
        name="graftline_quota_rejections_total",
        kind="counter",
        help="Requests refused because a limit of their key was used up.",
        labels=(Label(name="reason"),),
    ),
    Metric(
        name="graftline_snapshot_age_seconds",
        kind="gauge",
        unit="seconds",
        help="Since the routing snapshot was last known to be current; rises while the database is away.",
        across="max",
    ),
    Metric(
        name="graftline_replica_up",
        kind="gauge",
        help="1 where the engine replica answers, else 0.",
        labels=(_REPLICA,),
        across="max",
    ),
    Metric(
        name="graftline_replica_adapters",
        kind="gauge",
        help="Adapter versions that the replica serves.",
        labels=(_REPLICA,),
        across="max",
    ),
    Metric(
        name="graftline_poison_reports_total",
        kind="counter",
        help="Answers of NaN, by the replica that gave them; one for each adapter version, and for the base, a start.",
        labels=(_REPLICA,),
    ),
    Metric(
        name="graftline_slot_queue_depth",
        kind="gauge",
        help="Requests that wait because all adapter slots of the replica are in use.",
        labels=(_REPLICA,),
    ),
    Metric(
        name="graftline_shadow_requests_total",
        kind="counter",
        help="Requests mirrored to an experiment's shadow arm, and what became of them.",
        labels=(Label(name="outcome", values=("answered", "failed", "dropped")),),
    ),
    Metric(
        name="graftline_slot_wait_seconds",
        kind="histogram",
        unit="seconds",
        help="How long a request waited for an adapter slot, of those that had to; whether it got one or gave up.",
        labels=(_REPLICA,),
        buckets=_DURATIONS_S,
    ),
    Metric(
        name="graftline_pins_ignored",
        kind="gauge",
        help="Pinned adapters that have no slot of their own, since one must be left for all others.",
        across="max",
    ),
    Metric(
        name="graftline_adapter_load_seconds",
        kind="histogram",
        unit="seconds",
        help="Loading one adapter version into a replica.",
        labels=(_REPLICA,),
        buckets=_FIRST_TOKEN_S,
    ),
    Metric(
        name="graftline_adapter_load_stall_seconds",
        kind="histogram",
        unit="seconds",
        help="How long an engine stood still for the load of one adapter version: the load call, after staging.",
        labels=(_REPLICA,),
        buckets=_FIRST_TOKEN_S,
    ),
    Metric(
        name="graftline_adapter_load_failures_total",
        kind="counter",
        help="Loads that did not happen, by error code: damaged files, a refusal of the engine.",
        labels=(_REPLICA, Label(name="code")),
    ),
    Metric(
        name="graftline_adapters_damaged",
        kind="gauge",
        help="Adapter versions whose files are missing or changed. Anything but 0 is an alarm.",
        across="max",
    ),
    Metric(
        name="graftline_probes_waiting",
        kind="gauge",
        help="New adapter versions that wait for their first forward.",
        across="max",
    ),
    Metric(
        name="graftline_patrol_probes_total",
        kind="counter",
        help="Adapter versions asked again on a quiet replica, and whether they answered as recorded.",
        labels=(_REPLICA, Label(name="result", values=("passed", "differs"))),
    ),
    Metric(
        name="graftline_replica_room",
        kind="gauge",
        help="Adapters that the replica can still load until its next restart.",
        labels=(_REPLICA,),
        across="max",
    ),
    Metric(
        name="graftline_replica_out",
        kind="gauge",
        help="1 where the replica was taken out of service because of what it answered, or to make room.",
        labels=(_REPLICA,),
        across="max",
    ),
    Metric(
        name="graftline_replica_recycles_total",
        kind="counter",
        help="Restarts of a replica that were asked for: it gave NaN, its probe differed, it had no room left, or it "
        "had contained its NaN and another could spare it.",
        labels=(_REPLICA, Label(name="why", values=("nan", "differs", "full", "contained"))),
    ),
    Metric(
        name="graftline_tripwire_total",
        kind="counter",
        help="Answers of NaN that the fleet dealt with. Any increase is an alarm. Not contained: the replica was taken "
        "out at once. Contained: no other answer was touched, and it serves on.",
        labels=(_REPLICA, Label(name="contained", values=("no", "yes"))),
    ),
    Metric(
        name="graftline_loop_failures_total",
        kind="counter",
        help="Steps of background loops that failed or took too long.",
        labels=(Label(name="loop"),),
    ),
    Metric(
        name="graftline_feedback_total",
        kind="counter",
        help="Feedback that was accepted, on the disk, by kind and by the way it came.",
        labels=(
            Label(name="kind", values=("thumbs", "scalar", "comment", "correction", "preference", "implicit")),
            Label(name="source", values=("api", "sdk", "review")),
        ),
    ),
    Metric(
        name="graftline_feedback_refused_total",
        kind="counter",
        help="Feedback calls of which nothing was kept: one rater said too much (pace), or the disk refused (disk).",
        labels=(Label(name="why", values=("pace", "disk")),),
    ),
    Metric(name="graftline_records_waiting", kind="gauge", help="Records in memory that are not in the spool yet."),
    Metric(
        name="graftline_records_dropped_total",
        kind="counter",
        help="Records lost because the spool's disk was full and the buffer too. Any increase is an alarm.",
    ),
    Metric(name="graftline_spool_errors_total", kind="counter", help="Writes that the spool's disk refused."),
    Metric(name="graftline_records_ingested_total", kind="counter", help="Records moved from spools to the database."),
    Metric(
        name="graftline_records_rejected",
        kind="gauge",
        help="Spooled lines that no database can hold, set aside in `rejected` since the worker started.",
    ),
    Metric(name="graftline_jobs_running", kind="gauge", help="Fine-tuning jobs that workers have now."),
    Metric(
        name="graftline_jobs_ended_total",
        kind="counter",
        help="Fine-tuning jobs that ended in a worker's hands, and how.",
        labels=(Label(name="state", values=("succeeded", "failed")),),
    ),
    *EXPERIMENTS,
)
