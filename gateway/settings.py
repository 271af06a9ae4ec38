"""Settings of every process: `graftline.toml`, then `GRAFTLINE_*` on top, read once and passed down.

Unknown keys fail, all problems are reported together, units stand at the end of names. The table in the docs is
generated from the descriptions here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import training.base

PREFIX = "GRAFTLINE_"


class SettingsError(Exception):
    """The configuration cannot be used; the message lists every problem, one a line."""

    code = "bad_settings"
    retryable = False


class Engine(BaseModel):
    """`[engine]`: the vLLM that `graftline up` starts here, or the engines that run elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: tuple[str, ...] = Field((), description="Engines that run elsewhere; when given, none is started here.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Which build of vLLM to start.")
    max_loras: int | None = Field(
        None, ge=1, description="Adapters in one batch; by device when unset, 16 where engines are given by URL."
    )
    max_cpu_loras: int | None = Field(None, ge=1, description="Adapters the engine can hold; by device when unset.")
    max_lora_rank: int = Field(16, ge=1, description="Largest rank that registers; rounded up to what vLLM takes.")
    max_model_len: int | None = Field(None, ge=16, description="Context length in tokens; the model's own when unset.")
    kv_cache_gib: float | None = Field(None, gt=0, description="Memory for the KV cache on CPU, GiB.")
    start_timeout_s: float = Field(300, gt=0, description="Longest start before the engine is restarted.")
    supervised: bool = Field(False, description="Whether `graftline up` restarts the engine when asked; it says so.")
    args: Mapping[str, Any] = Field(default_factory=dict, description="Any other vLLM flag, by its long name.")


class Settings(BaseModel):
    """Everything that a process may be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(Path(".graftline"), description="Where state lives: databases, artifacts, logs, admin.key.")
    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the gateway listens on.")
    workers: int = Field(1, ge=1, le=64, description="HTTP worker processes.")
    base: str = Field("tidewell", description="The base model: the embedded one, a folder, or a hub id.")
    base_name: str = Field("", description="The name clients call the base by; derived from `base` when empty.")
    base_aliases: tuple[str, ...] = Field(
        (), description="Further names under which adapters may state this base; `NAME@COMMIT` vouches for a revision."
    )
    database_url: str = Field("", description="PostgreSQL for control state; SQLite under `home` when empty.")
    records_url: str = Field("", description="PostgreSQL for records; SQLite under `home` when empty.")
    engine: Engine = Field(default_factory=Engine, description="The engine, or the engines.")

    body_bytes_max: int = Field(8 << 20, gt=0, description="Largest request body.")
    upload_bytes_max: int = Field(1 << 30, gt=0, description="Largest adapter upload.")
    file_bytes_max: int = Field(512 << 20, gt=0, description="Largest file for training or evaluation.")
    tenant_files_bytes_max: int = Field(10 << 30, gt=0, description="Bytes that one tenant's files may have together.")
    header_bytes_max: int = Field(32 << 10, gt=0, description="Largest request head.")
    header_timeout_s: float = Field(10, gt=0, description="Time a client gets to send a request's head.")
    body_timeout_s: float = Field(30, gt=0, description="Time a client gets to send a request's body.")
    send_timeout_s: float = Field(60, gt=0, description="Time a client may stop reading before it is dropped.")
    request_timeout_s: float = Field(600, gt=0, description="Longest life of one inference request.")
    stall_timeout_s: float = Field(120, gt=0, description="Longest silence of an engine before or within an answer.")
    keep_alive_s: float = Field(15, gt=0, description="Silence on a stream after which a comment line is sent.")
    adapter_wait_s: float = Field(5, ge=0, description="Time a request waits for its adapter to be loaded again.")
    drain_timeout_s: float = Field(30, gt=0, description="Time streams get at shutdown.")
    slot_turn_s: float = Field(1.0, gt=0, description="An adapter's turn on its slot while others wait for one.")
    slot_turn_tokens: int = Field(32_768, gt=0, description="Tokens that an adapter may use in one turn.")
    slot_queue_max: int = Field(1024, ge=1, description="Requests that may wait for one replica's adapter slots.")
    slot_queue_timeout_s: float = Field(60, gt=0, description="Longest wait for an adapter slot before a 503.")
    shadow_waiting_max: int = Field(64, ge=0, description="Requests that may wait to be mirrored to a shadow arm.")
    inflight_max: int = Field(2048, gt=0, description="Inference requests at once in one worker before a 503.")
    n_max: int = Field(8, ge=1, description="Largest `n` or `best_of`, and prompts in one completions call.")
    logprobs_max: int = Field(20, ge=0, description="Largest `top_logprobs`.")
    grammar_bytes_max: int = Field(64 << 10, gt=0, description="Largest schema or grammar for structured output.")
    tools_max: int = Field(128, ge=0, description="Most tools in one request.")
    media_hosts: tuple[str, ...] = Field((), description="Hosts that image, audio and video URLs may name.")

    adapter_headroom: int = Field(
        16, ge=0, description="Of `max_cpu_loras`, places kept for adapters that arrive until an engine's restart."
    )
    copies_min: int = Field(
        2, ge=1, description="Engines that hold what an alias points at, when not everything fits on each."
    )
    load_wait_s: float = Field(0.25, ge=0, description="Longest wait of an adapter's load for a quiet moment.")
    stage_bytes_max: int = Field(
        256 << 20, ge=0, description="Memory for adapters that engines here are about to load, bytes; 0 is off."
    )
    poison_drain_s: float = Field(10, ge=0, description="Time streams get on an engine that gave NaN or differs.")
    patrol_per_s: float = Field(2, ge=0, description="Adapters that a quiet engine is asked for again; 0 is off.")
    gate: Literal["off", "required"] = Field(
        "off", description="Whether an adapter that was not trained here must pass an evaluation before `live`."
    )
    signing: Literal["off", "if_present", "required"] = Field(
        "off", description="Whether adapters' signatures are verified: at registration, and before each load."
    )
    signing_keys: tuple[Path, ...] = Field(
        (), description="PEM files of the public EC keys that may vouch for adapters."
    )
    signing_key: Path | None = Field(
        None,
        description="PEM file of the private EC key that signs what is trained or merged here; unsigned when unset.",
    )
    artifacts_keep_days: float = Field(
        7, ge=0, description="Days that the bytes of retired and rejected versions are kept."
    )
    source_folders: tuple[Path, ...] = Field((), description="Folders that `POST /v1/adapters` may name as a source.")
    source_hosts: tuple[str, ...] = Field(
        (), description="Web hosts that adapters may come from: `a.example`, `a.example:8443` or `*.example`."
    )
    source_buckets: tuple[str, ...] = Field((), description="S3 buckets that `POST /v1/adapters` may name as a source.")
    source_timeout_s: float = Field(600, gt=0, description="Longest time to fetch an adapter from elsewhere.")
    hub_endpoint: str = Field("https://huggingface.co", description="The hub that `hub:ORG/NAME` sources mean.")

    probe: Literal["auto", "off"] = Field(
        "auto", description="First forward of an adapter off the shared engines: a sandboxed process, or `probe_url`."
    )
    probe_url: str = Field(
        "", description="An engine that serves nobody, for probes; without it, the training extra is needed."
    )
    probe_timeout_s: float = Field(30, gt=0, description="Longest first forward of one adapter.")
    probe_memory_gib: float = Field(2, gt=0, description="Memory of one first forward on top of the base's, GiB.")
    probe_idle_s: float = Field(600, gt=0, description="Silence after which the probe process gives its memory back.")

    experiment_every_s: float = Field(5, gt=0, le=3600, description="How often each running experiment is looked at.")
    selftest_alias: str = Field(
        "",
        description="An alias, as `support@live`, on which a version is always tested against itself; off when empty.",
    )
    approvals_webhook: str = Field(
        "", repr=False, description="URL that is sent a POST for each decision that waits for a person; off when empty."
    )
    feedback_per_rater_per_min: int = Field(
        600, ge=1, description="Things that one rater may say a minute to one gateway process before a 429."
    )
    feedback_orphans_keep_days: float = Field(
        7, gt=0, description="Days that feedback waits for the answer that it is about."
    )
    review_claim_s: float = Field(
        900, gt=0, le=604800, description="How long a review task is kept for the reviewer who has it."
    )

    jobs: bool = Field(True, description="Whether this worker runs fine-tuning jobs.")
    jobs_at_once: int = Field(1, ge=1, le=64, description="Jobs that one worker runs at once.")
    jobs_memory_gib: float | None = Field(
        None, gt=0, description="Memory for all trainings of one worker, GiB, in equal shares; no limit when unset."
    )
    jobs_heartbeat_s: float = Field(
        5, ge=0.1, le=300, description="Time between a worker's signs of life; after six without one its jobs are free."
    )
    launcher: Literal["local", "ray"] = Field("local", description="Where trainings run: beside the worker, or on Ray.")
    ray_url: str = Field("", description="Dashboard of the Ray cluster that trainings run on, `http://HOST:8265`.")
    ray_token: str = Field("", repr=False, description="Token of a Ray cluster that asks for one.")
    ray_python: str = Field("python", description="Interpreter with this program, on the machines of the Ray cluster.")
    ray_cpus: float = Field(1, gt=0, description="Processors that Ray keeps for each process of a training.")
    ray_gpus: float = Field(0, ge=0, description="Accelerators that Ray gives to each process of a training.")
    cost_per_hour: float | None = Field(
        None,
        ge=0,
        description="Price of an hour of the machine that trains; `graftline train --plan` multiplies by it.",
    )

    judge_url: str = Field(
        "", description="OpenAI-compatible endpoint of a model that compares answers in evaluations; off when empty."
    )
    judge_model: str = Field("", description="The judge's model: none that gives rewards in training.")
    judge_key: str = Field("", repr=False, description="The judge's API key.")

    outbox_records_max: int = Field(10_000, gt=0, description="Records held in memory while the disk is full.")
    outbox_bytes_max: int = Field(
        256 << 20, gt=0, description="Bytes of records held in memory while the disk is full."
    )
    outbox_flush_ms: float = Field(20, gt=0, le=50, description="Longest wait of a record before it is on disk.")
    capture_bytes_max: int = Field(1 << 20, gt=0, description="Largest request or answer body kept in a record.")
    pseudonym_key: str = Field(
        "", repr=False, description="Keys the pseudonyms of users in records; made under `home` when empty."
    )
    records_keep_days: int | None = Field(None, ge=1, description="Days that records are kept; for ever when unset.")
    snapshot_poll_ms: float = Field(100, gt=0, le=250, description="How often the control revision is looked at.")
    snapshot_age_max_s: float = Field(900, gt=0, description="Age at which a snapshot no longer vouches for keys.")
    metrics_key_required: bool = Field(False, description="Whether /metrics asks for an operator's or auditor's key.")

    @property
    def control_url(self) -> str:
        """SQL URL of control state: keys, adapters, aliases."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'control.db'}"

    @property
    def artifacts(self) -> Path:
        return self.home.absolute() / "artifacts"

    @property
    def spool(self) -> Path:
        return self.home.absolute() / "spool"

    @property
    def metrics(self) -> Path:
        return self.home.absolute() / "metrics"

    @property
    def logs(self) -> Path:
        return self.home.absolute() / "logs"

    @property
    def files(self) -> Path:
        return self.home.absolute() / "files"

    @property
    def datasets(self) -> Path:
        return self.home.absolute() / "datasets"

    @property
    def runs(self) -> Path:
        return self.home.absolute() / "runs"

    @property
    def admin_key(self) -> Path:
        return self.home.absolute() / "admin.key"

    @property
    def engine_socket(self) -> Path:
        return self.home.absolute() / "run" / "engine.sock"

    @property
    def base_folder(self) -> Path | None:
        """The base's folder, or None where `base` is a hub id that only the engine can fetch."""
        if self.base == "tidewell":
            return Path(training.base.PATH)
        folder = Path(self.base).expanduser()
        return folder.absolute() if folder.is_dir() else None

    @property
    def served_name(self) -> str:
        return self.base_name or Path(self.base).name

    @property
    def replicas(self) -> Mapping[str, str]:
        """Name → URL of every engine."""
        if self.engine.urls:
            return {f"engine-{i}": url for i, url in enumerate(self.engine.urls)}
        return {"local": f"unix:{self.engine_socket}"}


def load(environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Settings from `graftline.toml` (or `GRAFTLINE_CONFIG`) with the environment on top.

    `GRAFTLINE_ENGINE_KV_CACHE_GIB=2` reaches `[engine] kv_cache_gib`. Raises `SettingsError` with every problem.
    """
    named = environ.get(PREFIX + "CONFIG")
    path = file or Path(named or "graftline.toml")
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}: not TOML: {error}") from error
    elif file or named:
        raise SettingsError(f"{path}: no such settings file")
    engine = dict(values.get("engine", {}))
    for key, raw in sorted(environ.items()):
        name = key.removeprefix(PREFIX).lower()
        if not key.startswith(PREFIX) or name in _NOT_OURS:
            continue
        if name.startswith("engine_"):
            engine[name.removeprefix("engine_")] = _split(Engine, name.removeprefix("engine_"), raw)
        else:
            values[name] = _split(Settings, name, raw)
    if engine:
        values["engine"] = engine
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (found {e['input']!r})" for e in error.errors()]
        raise SettingsError("These settings cannot be used:\n" + "\n".join(lines)) from error


#: Read by the set-up script, by clients of the CLI or above, not settings of a process.
_NOT_OURS = frozenset({"config", "engine", "key", "url"})


def _split(model: type[BaseModel], name: str, raw: str) -> Any:
    """A comma-separated environment value for a field that holds several."""
    field = model.model_fields.get(name)
    if field is not None and "tuple" in str(field.annotation):
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    return raw
