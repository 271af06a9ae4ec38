"""Runs on a Ray cluster, by the HTTP interface of Ray Jobs: no Ray is imported here, so none must match the cluster's.

The cluster's machines see the run's folder under the same path (shared storage) and have this program installed. A run
survives the worker that started it; whoever comes next finds it by its handle, or by its name. Light.
"""

from __future__ import annotations

import os
import secrets
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.launchers.command import argv
from training.launchers.errors import CannotLaunch, LauncherAway
from training.launchers.values import LOG, LaunchSpec

#: Metadata by which a run is found again.
_NAME: Final = "graftline_run"
_FOLDER: Final = "graftline_folder"
_UNDER_WAY: Final = frozenset({"PENDING", "RUNNING"})
_KILLED, _TERMINATED = -9, -15
_Read = TypeVar("_Read")


class _Submission(BaseModel):
    """What the cluster says of a job. It says more than we read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    submission_id: str | None = None
    status: Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
    message: str | None = None
    metadata: dict[str, str] | None = None
    driver_exit_code: int | None = None


class _Logs(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    logs: str


class _Submitted(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    submission_id: Annotated[str, Field(min_length=1)]


_LISTED: Final = TypeAdapter(list[_Submission])
_ONE: Final = TypeAdapter(_Submission)
_TEXT: Final = TypeAdapter(_Logs)
_TAKEN: Final = TypeAdapter(_Submitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayLauncher:
    """Submits processes to the head of a cluster, such as `http://127.0.0.1:8265`."""

    url: str
    #: The interpreter on the cluster's machines.
    python: str = "python"
    #: Of a cluster that asks for one.
    token: str = ""
    #: What each process of a run is given of the cluster.
    cpus: float = 1
    gpus: float = 0
    timeout_s: float = 30

    def start(self, spec: LaunchSpec) -> RayRun:
        """Submit it, or find the run of that name that still goes on. Raises CannotLaunch, LauncherAway."""
        for known in self._asked("GET", "/api/jobs/", _LISTED) or ():
            if (known.metadata or {}).get(_NAME) == spec.name and known.status in _UNDER_WAY and known.submission_id:
                return RayRun(launcher=self, submission=known.submission_id, folder=spec.folder)
        spec.folder.mkdir(parents=True, exist_ok=True)
        body = {
            "entrypoint": shlex.join(argv(spec, python=self.python)),
            "submission_id": f"{spec.name}-{spec.attempt}-{secrets.token_hex(3)}",
            "metadata": {_NAME: spec.name, _FOLDER: str(spec.folder)},
            "runtime_env": {"env_vars": dict(spec.environment)} if spec.environment else {},
            "entrypoint_num_cpus": self.cpus * spec.launch.processes,
            "entrypoint_num_gpus": self.gpus * spec.launch.processes,
        }
        taken = self._asked("POST", "/api/jobs/", _TAKEN, body)
        if taken is None:
            raise CannotLaunch(f"{self.url} knows no jobs; is it the dashboard of a Ray head?")
        return RayRun(launcher=self, submission=taken.submission_id, folder=spec.folder)

    def reattach(self, handle: str) -> RayRun | None:
        """The run of a handle; None where the cluster does not know it, or never was ours. Raises LauncherAway."""
        kind, _, submission = handle.partition(":")
        if kind != "ray" or not submission:
            return None
        found = self._asked("GET", f"/api/jobs/{submission}", _ONE)
        folder = (found.metadata or {}).get(_FOLDER) if found is not None else None
        return RayRun(launcher=self, submission=submission, folder=Path(folder)) if folder else None

    def _asked(
        self, verb: str, path: str, read: TypeAdapter[_Read], body: Mapping[str, Any] | None = None
    ) -> _Read | None:
        """What the cluster answers; None for a 404. A strange answer is no reason to believe that a run ended."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            answer = httpx.request(
                verb, self.url.rstrip("/") + path, headers=headers, json=body, timeout=self.timeout_s
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LauncherAway(f"Ray at {self.url} does not answer: {type(error).__name__}: {error}") from error
        if answer.status_code == 404:
            return None
        if answer.status_code in (400, 401, 403, 405, 422):
            raise CannotLaunch(f"Ray at {self.url} refuses {verb} {path} ({answer.status_code}): {answer.text[-400:]}")
        try:
            answer.raise_for_status()
            return read.validate_json(answer.content)
        except (httpx.HTTPStatusError, ValidationError) as error:
            said = answer.text[-400:]
            raise LauncherAway(f"Ray at {self.url} answered {verb} {path} with {answer.status_code}: {said}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RayRun:
    """One job of the cluster."""

    launcher: RayLauncher
    submission: str
    folder: Path

    @property
    def handle(self) -> str:
        """What `RayLauncher.reattach` takes, in any process."""
        return f"ray:{self.submission}"

    def poll(self) -> int | None:
        """The exit code; None while it waits or runs. What the cluster forgot, it does not run."""
        found = self._asked("GET", f"/api/jobs/{self.submission}", _ONE)
        if found is None:
            return _KILLED
        match found.status:
            case "PENDING" | "RUNNING":
                return None
            case "SUCCEEDED":
                return 0
            case "STOPPED":
                return _TERMINATED
            case "FAILED":
                return found.driver_exit_code or 1

    def stop(self, kill: bool = False) -> None:
        """Ray asks (SIGTERM), waits some seconds (RAY_JOB_STOP_WAIT_TIME_S, 3 by default), and then kills: always."""
        self._asked("POST", f"/api/jobs/{self.submission}/stop", TypeAdapter(dict[str, Any]), {})

    def logs(self) -> Path:
        """What it printed so far, brought to the run's folder."""
        path = self.folder / LOG
        found = self._asked("GET", f"/api/jobs/{self.submission}/logs", _TEXT)
        text = found.logs if found is not None else ""
        if not text and (job := self._asked("GET", f"/api/jobs/{self.submission}", _ONE)) is not None:
            text = job.message or ""  # why it never began
        if text:
            with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False, encoding="utf-8") as file:
                file.write(text)
            os.replace(file.name, path)
        return path

    def _asked(
        self, verb: str, path: str, read: TypeAdapter[_Read], body: Mapping[str, Any] | None = None
    ) -> _Read | None:
        try:
            return self.launcher._asked(verb, path, read, body)
        except CannotLaunch as error:  # nothing is launched here: whoever refuses now says nothing of the run
            raise LauncherAway(str(error)) from error
